/* pagestore._native: whether reads at some LSNs need a layer, and how much of it they do not. */
#include "store/needed.h"
#include "store/sieve.h"

#include "store.h"

uint64_t *
ps_lsns_of(PyObject *tuple)
{
    size_t count = (size_t)PyTuple_GET_SIZE(tuple);
    uint64_t *lsns = PyMem_RawMalloc((count + 1) * sizeof *lsns);
    if (lsns == NULL)
        return (uint64_t *)PyErr_NoMemory();
    for (size_t i = 0; i < count; i++)
        lsns[i] = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(tuple, (Py_ssize_t)i));
    if (PyErr_Occurred() == NULL)
        return lsns;
    PyMem_RawFree(lsns);
    return NULL;
}

static PyObject *
layer_is_needed(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *shown, *object, *listed;
    if (!PyArg_ParseTuple(args, "OOO!:layer_is_needed", &shown, &object, &PyTuple_Type, &listed))
        return NULL;
    const ps_snapshot *snapshot = ps_snapshot_of(shown);
    ps_source source;
    if (snapshot == NULL || ps_source_of(object, &source) < 0)
        return NULL;
    if (source.file == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Layer is needed");
        return NULL;
    }
    uint64_t *lsns = ps_lsns_of(listed);
    size_t count = (size_t)PyTuple_GET_SIZE(listed);
    if (lsns == NULL)
        return NULL;
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_layer_is_needed(snapshot, source.file, lsns, count, &err);
    Py_END_ALLOW_THREADS
    PyMem_RawFree(lsns);
    return rc < 0 ? ps_raise(rc, &err) : PyBool_FromLong(rc);
}

static PyObject *
layer_dead_part(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *shown, *object, *listed;
    int ends;
    unsigned long long image_lsn;
    if (!PyArg_ParseTuple(args, "OOO!pK:layer_dead_part", &shown, &object, &PyTuple_Type, &listed,
                          &ends, &image_lsn))
        return NULL;
    const ps_snapshot *snapshot = ps_snapshot_of(shown);
    ps_source source;
    if (snapshot == NULL || ps_source_of(object, &source) < 0)
        return NULL;
    if (source.file == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Layer is needed");
        return NULL;
    }
    uint64_t *lsns = ps_lsns_of(listed);
    if (lsns == NULL)
        return NULL;
    ps_kept kept = {.boundaries = lsns, .count = (size_t)PyTuple_GET_SIZE(listed), .ends = ends};
    ps_error err = {0};
    uint32_t part;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_layer_dead_part(snapshot, source.file, &kept, image_lsn, &part, &err);
    Py_END_ALLOW_THREADS
    PyMem_RawFree(lsns);
    return rc < 0 ? ps_raise(rc, &err) : PyFloat_FromDouble((double)part / 1024);
}

static PyMethodDef functions[] = {
    {"layer_is_needed", layer_is_needed, METH_VARARGS,
     "layer_is_needed(snapshot, layer, lsns) -> whether a read at one of them needs it"},
    {"layer_dead_part", layer_dead_part, METH_VARARGS,
     "layer_dead_part(snapshot, layer, boundaries, ends, image_lsn) -> about what part is dead"},
    {NULL, NULL, 0, NULL}};

int
ps_add_needed(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
