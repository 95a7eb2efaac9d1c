#include "batch.h"

static PyObject *native_error;

PyObject *
ps_raise(int code, const ps_error *err)
{
    const char *text = err != NULL && err->text[0] != '\0' ? err->text : "native call failed";
    PyObject *args = Py_BuildValue("(is)", code, text);
    if (args != NULL) {
        PyErr_SetObject(native_error, args);
        Py_DECREF(args);
    }
    return NULL;
}

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pagestore._native",
    .m_doc = "The native core of pagestore. See pagestore/_native.pyi.",
    .m_size = -1,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    native_error = PyErr_NewExceptionWithDoc(
        "pagestore._native.NativeError", "args: (status code of native/core/status.h, text)", NULL,
        NULL);
    if (native_error == NULL || PyModule_AddObjectRef(module, "NativeError", native_error) < 0 ||
        ps_add_batch(module) < 0 || ps_add_crc32c(module) < 0 ||
        ps_add_wal(module) < 0 || ps_add_store(module) < 0 || ps_add_redo(module) < 0 ||
        ps_add_receiver(module) < 0 || ps_add_relay(module) < 0 ||
        ps_add_lmdbfile(module) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
