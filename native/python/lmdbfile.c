#include "module.h"

#include <errno.h>

#include "lmdbfile/check.h"

static PyTypeObject *FindingsType;

/* Takes a name apart: (table, key), two bytes objects that its tuple keeps. */
static int
parse_name(PyObject *pair, ps_lmdb_name *name)
{
    Py_ssize_t table_length, key_length;
    const char *table, *key;
    if (!PyTuple_Check(pair)) {
        PyErr_SetString(PyExc_TypeError, "a name is a tuple (table, key)");
        return -1;
    }
    if (!PyArg_ParseTuple(pair, "y#y#", &table, &table_length, &key, &key_length))
        return -1;
    name->table = (ps_lmdb_bytes){(const uint8_t *)table, (size_t)table_length};
    name->key = (ps_lmdb_bytes){(const uint8_t *)key, (size_t)key_length};
    return 0;
}

static PyObject *
bytes_or_none(const ps_lmdb_copy *copy)
{
    if (copy->data == NULL)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)copy->data, (Py_ssize_t)copy->length);
}

static PyObject *
list_of(const ps_lmdb_copy *copies, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *item = bytes_or_none(&copies[i]);
        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *
unsealed(const ps_lmdb_findings *found)
{
    if (found->unsealed == 0)
        Py_RETURN_NONE;
    return Py_BuildValue("(NN)", bytes_or_none(&found->unsealed_table),
                         bytes_or_none(&found->unsealed_key));
}

static PyObject *
findings_object(const ps_lmdb_question *question, const ps_lmdb_findings *found)
{
    PyObject *result = PyStructSequence_New(FindingsType);
    if (result == NULL)
        return NULL;
    PyObject *fields[] = {
        PyLong_FromUnsignedLongLong(found->transaction),
        PyLong_FromUnsignedLongLong(found->before),
        PyLong_FromUnsignedLongLong(found->entries),
        PyLong_FromUnsignedLongLong(found->loose),
        PyBytes_FromStringAndSize((const char *)found->total, sizeof found->total),
        unsealed(found),
        list_of(found->values, question->asked),
        bytes_or_none(&found->value_before),
        list_of(found->tables, found->table_count),
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        failed = failed || fields[i] == NULL;
        PyStructSequence_SetItem(result, (Py_ssize_t)i, fields[i]);
    }
    if (failed)
        Py_CLEAR(result);
    return result;
}

static PyObject *
lmdb_check(PyObject *Py_UNUSED(module), PyObject *args)
{
    ps_lmdb_question question = {.asked = 0};
    ps_lmdb_findings found;
    ps_error err = {.code = 0};
    int descriptor, status, failed_with;
    PyObject *names;
    if (!PyArg_ParseTuple(args, "iibO!:lmdb_check", &descriptor, &question.seal,
                          &question.seal_version, &PyTuple_Type, &names))
        return NULL;
    if (PyTuple_GET_SIZE(names) > PS_LMDB_ASKED) {
        PyErr_Format(PyExc_ValueError, "at most %d entries can be asked for", PS_LMDB_ASKED);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        if (parse_name(PyTuple_GET_ITEM(names, i), &question.names[question.asked++]) < 0)
            return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = ps_lmdb_check(descriptor, &question, &found, &err);
    failed_with = errno;
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;
    if (status == PS_OK) {
        result = findings_object(&question, &found);
    } else if (status == PS_ERR_IO) {
        errno = failed_with;
        PyErr_SetFromErrno(PyExc_OSError);
    } else if (status == PS_ERR_NOMEM) {
        PyErr_NoMemory();
    } else {
        ps_raise(status, &err);
    }
    ps_lmdb_findings_free(&found);
    return result;
}

static PyStructSequence_Field findings_fields[] = {
    {"transaction", "the newest one's number; 0 of a file that was never written to"},
    {"before", "the other meta page's"},
    {"entries", "of all tables"},
    {"loose", "of those, in no table"},
    {"total", "the sum over all but the first that was asked for, 16 bytes, little-endian"},
    {"unsealed", "None, or (table, key) of the first entry with a seal that does not hold"},
    {"values", "of the entries that were asked for; None where there is none"},
    {"value_before", "of the first of them, in the older transaction"},
    {"tables", "their names"},
    {NULL, NULL}};

static PyStructSequence_Desc findings_description = {
    .name = "pagestore._native.LmdbFindings",
    .doc = "What the check of an LMDB file has found. See native/core/lmdbfile/check.h.",
    .fields = findings_fields,
    .n_in_sequence = 9};

static PyMethodDef functions[] = {
    {"lmdb_check", lmdb_check, METH_VARARGS,
     "lmdb_check(descriptor, seal, seal_version, asked) -> LmdbFindings"},
    {NULL, NULL, 0, NULL}};

int
ps_add_lmdbfile(PyObject *module)
{
    FindingsType = PyStructSequence_NewType(&findings_description);
    if (FindingsType == NULL ||
        PyModule_AddObjectRef(module, "LmdbFindings", (PyObject *)FindingsType) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
