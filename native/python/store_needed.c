/* pagestore._native.layer_is_needed: whether reads at some LSNs need a layer. */
#include "store/needed.h"

#include "store.h"

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
    size_t count = (size_t)PyTuple_GET_SIZE(listed);
    uint64_t *lsns = PyMem_RawMalloc((count + 1) * sizeof *lsns);
    if (lsns == NULL)
        return PyErr_NoMemory();
    for (size_t i = 0; i < count; i++)
        lsns[i] = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(listed, i));
    ps_error err = {0};
    int rc = PS_OK;
    if (!PyErr_Occurred()) {
        Py_BEGIN_ALLOW_THREADS
        rc = ps_layer_is_needed(snapshot, source.file, lsns, count, &err);
        Py_END_ALLOW_THREADS
    }
    PyMem_RawFree(lsns);
    if (PyErr_Occurred())
        return NULL;
    return rc < 0 ? ps_raise(rc, &err) : PyBool_FromLong(rc);
}

static PyMethodDef functions[] = {
    {"layer_is_needed", layer_is_needed, METH_VARARGS,
     "layer_is_needed(snapshot, layer, lsns) -> whether a read at one of them needs it"},
    {NULL, NULL, 0, NULL}};

int
ps_add_needed(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
