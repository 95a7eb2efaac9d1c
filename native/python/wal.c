#include "module.h"
#include "wal/align.h"

static PyObject *
wal_align(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer data;
    unsigned long long lsn, limit, known_prev;
    PyObject *known;
    if (!PyArg_ParseTuple(args, "y*KKOK:wal_align", &data, &lsn, &limit, &known, &known_prev))
        return NULL;
    unsigned long long known_start = known == Py_None ? 0 : PyLong_AsUnsignedLongLong(known);
    if (PyErr_Occurred()) {
        PyBuffer_Release(&data);
        return NULL;
    }
    uint64_t end = 0, prev = 0;
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_wal_align(data.buf, (size_t)data.len, lsn, limit, known_start, known_prev, &end,
                      &prev, &err);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    if (rc == PS_ERR_NOT_FOUND)
        Py_RETURN_NONE;
    if (rc != PS_OK)
        return ps_raise(rc, &err);
    return Py_BuildValue("KK", (unsigned long long)end, (unsigned long long)prev);
}

static PyMethodDef functions[] = {
    {"wal_align", wal_align, METH_VARARGS,
     "wal_align(data, lsn, limit, known_start, known_prev) -> (end_lsn, prev_lsn) or None"},
    {NULL, NULL, 0, NULL}};

int
ps_add_wal(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
