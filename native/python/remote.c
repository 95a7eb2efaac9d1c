/*
 * pagestore._native.Remote: layers that are elsewhere, fetched by a callable of Python.
 *
 * A thread that reads takes the GIL to call it. So nobody may hold the GIL while he waits for
 * such a thread or for a lock that it has: whatever reads layers lets go of the GIL first.
 */
#include "layer/file.h"
#include "store.h"

/* Read and written under the GIL; lives as long as the core's part. */
typedef struct callables {
    PyObject *fetch;
    PyObject *damaged;
} callables;

typedef struct {
    PyObject_HEAD
    ps_remote *remote;
    callables *hooks;
} RemoteObject;

static PyTypeObject RemoteType;

/* The words of the exception that is set, which it clears. */
static int
failed(ps_error *err)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *text = value == NULL ? NULL : PyObject_Str(value);
    const char *words = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    int rc = ps_fail(err, PS_ERR_REMOTE, "%s", words == NULL ? "cannot be fetched" : words);
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return rc;
}

/* Bytes, or a text: why there are none, and never will be. */
static int
take(PyObject *answer, size_t length, uint8_t *out, ps_error *err)
{
    if (answer == NULL)
        return failed(err);
    if (PyUnicode_Check(answer)) {
        const char *words = PyUnicode_AsUTF8(answer);
        return words == NULL ? failed(err) : ps_fail(err, PS_ERR_CORRUPT, "%s", words);
    }
    Py_buffer bytes;
    if (PyObject_GetBuffer(answer, &bytes, PyBUF_SIMPLE) < 0)
        return failed(err);
    int whole = (size_t)bytes.len == length;
    if (whole)
        memcpy(out, bytes.buf, length);
    PyBuffer_Release(&bytes);
    return whole ? PS_OK
                 : ps_fail(err, PS_ERR_REMOTE, "%zu bytes were asked for, not as many came",
                           length);
}

static int
fetch(void *arg, const ps_layer_id *id, uint8_t kind, uint64_t offset, size_t length, uint8_t *out,
      ps_error *err)
{
    const callables *hooks = arg;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *call = Py_XNewRef(hooks->fetch);
    int rc;
    if (call == NULL) {
        rc = ps_fail(err, PS_ERR_REMOTE, "the store is closed");
    } else {
        PyObject *answer = PyObject_CallFunction(
            call, "y#y#KBKn", id->tenant, (Py_ssize_t)16, id->timeline, (Py_ssize_t)16,
            (unsigned long long)id->number, kind, (unsigned long long)offset, (Py_ssize_t)length);
        rc = take(answer, length, out, err);
        Py_XDECREF(answer);
    }
    Py_XDECREF(call);
    PyGILState_Release(state);
    return rc;
}

static int
damaged(void *arg, const ps_layer_id *id, uint8_t kind, const char *what)
{
    const callables *hooks = arg;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *call = Py_XNewRef(hooks->damaged);
    PyObject *answer =
        call == NULL ? Py_NewRef(Py_False)
                     : PyObject_CallFunction(call, "y#y#KBs", id->tenant, (Py_ssize_t)16,
                                             id->timeline, (Py_ssize_t)16,
                                             (unsigned long long)id->number, kind, what);
    int truth = answer == NULL ? -1 : PyObject_IsTrue(answer);
    if (truth < 0)
        PyErr_WriteUnraisable(call);
    Py_XDECREF(answer);
    Py_XDECREF(call);
    PyGILState_Release(state);
    return truth > 0;
}

static PyObject *
remote_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"directory", "limit", "fetch", "damaged", NULL};
    PyObject *directory, *fetcher, *told;
    unsigned long long limit;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&KOO:Remote", names, PyUnicode_FSConverter,
                                     &directory, &limit, &fetcher, &told))
        return NULL;
    RemoteObject *self = (RemoteObject *)type->tp_alloc(type, 0);
    callables *hooks = PyMem_RawCalloc(1, sizeof *hooks);
    ps_remote_hooks core = {
        .arg = hooks, .fetch = fetch, .damaged = damaged, .release = PyMem_RawFree};
    ps_error err = {.text = "out of memory"};
    int rc = self == NULL || hooks == NULL
                 ? PS_ERR_NOMEM
                 : ps_remote_make(&self->remote, PyBytes_AS_STRING(directory), limit, &core, &err);
    Py_DECREF(directory);
    if (rc < 0) {
        PyMem_RawFree(hooks);
        Py_XDECREF(self);
        return ps_raise(rc, &err);
    }
    self->hooks = hooks;
    hooks->fetch = Py_NewRef(fetcher);
    hooks->damaged = Py_NewRef(told);
    return (PyObject *)self;
}

/* Layers may have the core's part for longer. */
static PyObject *
remote_close(RemoteObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->hooks != NULL) {
        Py_CLEAR(self->hooks->fetch);
        Py_CLEAR(self->hooks->damaged);
    }
    Py_RETURN_NONE;
}

static int
remote_traverse(RemoteObject *self, visitproc visit, void *arg)
{
    if (self->hooks != NULL) {
        Py_VISIT(self->hooks->fetch);
        Py_VISIT(self->hooks->damaged);
    }
    return 0;
}

static int
remote_clear(RemoteObject *self)
{
    Py_XDECREF(remote_close(self, NULL));
    return 0;
}

static void
remote_dealloc(RemoteObject *self)
{
    PyObject_GC_UnTrack(self);
    remote_clear(self);
    ps_remote_release(self->remote);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
remote_limit(RemoteObject *self, PyObject *argument)
{
    unsigned long long limit = PyLong_AsUnsignedLongLong(argument);
    if (limit == (unsigned long long)-1 && PyErr_Occurred() != NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    ps_remote_limit(self->remote, limit);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *
remote_stats(RemoteObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_remote_stats stats;
    Py_BEGIN_ALLOW_THREADS
    stats = ps_remote_read_stats(self->remote);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K}",
                         "cached_bytes", (unsigned long long)stats.cached_bytes,
                         "fetches", (unsigned long long)stats.fetches,
                         "fetched_bytes", (unsigned long long)stats.fetched_bytes,
                         "failures", (unsigned long long)stats.failures,
                         "emptied_bytes", (unsigned long long)stats.emptied_bytes,
                         "oldest", (unsigned long long)stats.oldest);
}

static PyMethodDef remote_methods[] = {
    {"close", (PyCFunction)remote_close, METH_NOARGS, "Nothing is fetched any more."},
    {"limit", (PyCFunction)remote_limit, METH_O, "limit(bytes): of what is cached."},
    {"stats", (PyCFunction)remote_stats, METH_NOARGS, "Counts."},
    {NULL, NULL, 0, NULL}};

static PyTypeObject RemoteType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.Remote",
    .tp_doc = "Remote(directory, limit, fetch, damaged). See native/core/layer/remote.h.",
    .tp_basicsize = sizeof(RemoteObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = remote_new,
    .tp_traverse = (traverseproc)remote_traverse,
    .tp_clear = (inquiry)remote_clear,
    .tp_dealloc = (destructor)remote_dealloc,
    .tp_methods = remote_methods,
};

int
ps_remote_of(PyObject *object, ps_remote **remote)
{
    *remote = NULL;
    if (object == Py_None)
        return 0;
    if (!PyObject_TypeCheck(object, &RemoteType)) {
        PyErr_SetString(PyExc_TypeError, "a Remote or None is needed");
        return -1;
    }
    *remote = ((RemoteObject *)object)->remote;
    return 0;
}

int
ps_add_remote(PyObject *module)
{
    return PyModule_AddType(module, &RemoteType);
}
