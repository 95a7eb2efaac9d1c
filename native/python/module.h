/* The binding: arguments, GIL, status code -> exception. No decisions are taken here. */
#ifndef PS_PYTHON_MODULE_H
#define PS_PYTHON_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "status.h"

/* Raises pagestore._native.NativeError(code, text) and returns NULL. */
PyObject *ps_raise(int code, const ps_error *err);

/* Each file of the binding adds its types and functions. 0, or -1 with an exception set. */
int ps_add_crc32c(PyObject *module);
int ps_add_wal(PyObject *module);
int ps_add_store(PyObject *module);
int ps_add_redo(PyObject *module);
int ps_add_receiver(PyObject *module);
int ps_add_relay(PyObject *module);
int ps_add_lmdbfile(PyObject *module);

#endif
