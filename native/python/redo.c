#include "redo.h"

typedef struct {
    PyObject_HEAD
    ps_redo_pool *pool;
} RedoPoolObject;

static PyTypeObject RedoPoolType;

ps_redo_pool *
ps_redo_pool_of(PyObject *object)
{
    if (!PyObject_TypeCheck(object, &RedoPoolType) || ((RedoPoolObject *)object)->pool == NULL) {
        PyErr_SetString(PyExc_TypeError, "a pagestore._native.RedoPool is needed");
        return NULL;
    }
    return ((RedoPoolObject *)object)->pool;
}

int
ps_redo_pool_or_none(PyObject *object, ps_redo_pool **pool)
{
    *pool = NULL;
    if (object == Py_None)
        return 0;
    *pool = ps_redo_pool_of(object);
    return *pool == NULL ? -1 : 0;
}

/* The strings of a sequence, NULL-terminated; they live as long as `fast`. */
static const char **
strings_of(PyObject *fast)
{
    Py_ssize_t count = PySequence_Fast_GET_SIZE(fast);
    const char **strings = PyMem_Calloc((size_t)count + 1, sizeof *strings);
    if (strings == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        strings[i] = PyUnicode_AsUTF8(PySequence_Fast_GET_ITEM(fast, i));
        if (strings[i] == NULL) {
            PyMem_Free(strings);
            return NULL;
        }
    }
    return strings;
}

static int
pool_init(RedoPoolObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"argv", "dirs", "size", "start_ms", "deadline_ms", NULL};
    PyObject *argv, *dirs;
    Py_ssize_t wanted = 0;
    ps_redo_options options = {.start_ms = 10000, .deadline_ms = 3000};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$nII:RedoPool", names, &argv, &dirs,
                                     &wanted, &options.start_ms, &options.deadline_ms))
        return -1;
    if (self->pool != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a RedoPool is made once");
        return -1;
    }
    PyObject *argv_fast = PySequence_Fast(argv, "argv must be a sequence of strings");
    PyObject *dirs_fast = PySequence_Fast(dirs, "dirs must be a sequence of strings");
    const char **argv_c = argv_fast != NULL ? strings_of(argv_fast) : NULL;
    const char **dirs_c = dirs_fast != NULL && argv_c != NULL ? strings_of(dirs_fast) : NULL;
    int result = -1;
    if (argv_c != NULL && dirs_c != NULL) {
        ps_error err = {.text = ""};
        options.dirs = (size_t)PySequence_Fast_GET_SIZE(dirs_fast);
        options.size = wanted > 0 ? (size_t)wanted : options.dirs;
        int rc = ps_redo_pool_open(&self->pool, argv_c, dirs_c, &options, &err);
        if (rc == PS_OK)
            result = 0;
        else
            ps_raise(rc, &err);
    }
    PyMem_Free(argv_c);
    PyMem_Free(dirs_c);
    Py_XDECREF(argv_fast);
    Py_XDECREF(dirs_fast);
    return result;
}

static void
pool_dealloc(RedoPoolObject *self)
{
    ps_redo_pool_free(self->pool);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* One call's requests, and the buffers they borrow from Python until it is over. */
typedef struct {
    ps_redo_request *requests;
    ps_redo_item *items;
    Py_buffer *buffers;
    size_t buffer_count;
    PyObject *pages; /* a list of bytes objects, filled in place */
} Call;

static void
call_release(Call *call)
{
    for (size_t i = 0; i < call->buffer_count; i++)
        PyBuffer_Release(&call->buffers[i]);
    PyMem_Free(call->buffers);
    PyMem_Free(call->items);
    PyMem_Free(call->requests);
    Py_XDECREF(call->pages);
}

static Py_buffer *
borrow(Call *call, PyObject *object)
{
    Py_buffer *buffer = &call->buffers[call->buffer_count];
    if (PyObject_GetBuffer(object, buffer, PyBUF_SIMPLE) != 0)
        return NULL;
    call->buffer_count++;
    return buffer;
}

/* (lsn, kind, flags, data) */
static int
fill_item(Call *call, ps_redo_item *item, PyObject *object)
{
    PyObject *data;
    unsigned long long lsn;
    if (!PyTuple_Check(object) ||
        !PyArg_ParseTuple(object, "KBBO", &lsn, &item->kind, &item->flags, &data)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "an item is a tuple (lsn, kind, flags, data)");
        return -1;
    }
    Py_buffer *buffer = borrow(call, data);
    if (buffer == NULL)
        return -1;
    if (buffer->len > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "an item has less than 4 GiB");
        return -1;
    }
    item->lsn = lsn;
    item->length = (uint32_t)buffer->len;
    item->data = buffer->buf;
    return 0;
}

/* (key, base or None, list of items) */
static int
fill_request(Call *call, size_t index, ps_redo_item **items, PyObject *object, uint8_t flags)
{
    ps_redo_request *request = &call->requests[index];
    PyObject *base, *list;
    const char *key;
    Py_ssize_t key_length;
    if (!PyArg_ParseTuple(object, "y#OO!", &key, &key_length, &base, &PyList_Type, &list))
        return -1;
    Py_buffer *buffer = base == Py_None ? NULL : borrow(call, base);
    if (base != Py_None && buffer == NULL)
        return -1;
    if (key_length != PS_KEY_LEN || (buffer != NULL && buffer->len != PS_PAGE_SIZE)) {
        PyErr_SetString(PyExc_ValueError, "a key has 18 bytes and a base 8192");
        return -1;
    }
    PyObject *page = PyBytes_FromStringAndSize(NULL, PS_PAGE_SIZE);
    if (page == NULL)
        return -1;
    PyList_SET_ITEM(call->pages, (Py_ssize_t)index, page);
    memcpy(request->key.b, key, PS_KEY_LEN);
    request->flags = flags;
    request->base = buffer != NULL ? buffer->buf : NULL;
    request->out = (uint8_t *)PyBytes_AS_STRING(page);
    request->items = *items;
    request->count = (size_t)PyList_GET_SIZE(list);
    for (size_t i = 0; i < request->count; i++)
        if (fill_item(call, (*items)++, PyList_GET_ITEM(list, (Py_ssize_t)i)) != 0)
            return -1;
    return 0;
}

static int
call_prepare(Call *call, PyObject *list, uint8_t flags)
{
    Py_ssize_t count = PyList_GET_SIZE(list);
    size_t items = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *tuple = PyList_GET_ITEM(list, i);
        if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != 3 ||
            !PyList_Check(PyTuple_GET_ITEM(tuple, 2))) {
            PyErr_SetString(PyExc_TypeError, "a request is a tuple (key, base, list of items)");
            return -1;
        }
        items += (size_t)PyList_GET_SIZE(PyTuple_GET_ITEM(tuple, 2));
    }
    call->requests = PyMem_Calloc((size_t)count + 1, sizeof *call->requests);
    call->items = PyMem_Calloc(items + 1, sizeof *call->items);
    call->buffers = PyMem_Calloc(items + (size_t)count + 1, sizeof *call->buffers);
    if (call->requests == NULL || call->items == NULL || call->buffers == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    call->pages = PyList_New(count);
    ps_redo_item *next = call->items;
    for (Py_ssize_t i = 0; call->pages != NULL && i < count; i++)
        if (fill_request(call, (size_t)i, &next, PyList_GET_ITEM(list, i), flags) != 0)
            return -1;
    return call->pages != NULL ? 0 : -1;
}

static PyObject *
pool_apply_many(RedoPoolObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"requests", "flags", NULL};
    PyObject *list;
    unsigned char flags = 0;
    Call call = {.pages = NULL};
    ps_error err = {.text = ""};
    int rc;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|B:apply_many", names, &PyList_Type, &list,
                                     &flags))
        return NULL;
    ps_redo_pool *pool = ps_redo_pool_of((PyObject *)self);
    if (pool == NULL || call_prepare(&call, list, flags) != 0) {
        call_release(&call);
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(call.pages);
    Py_BEGIN_ALLOW_THREADS
    rc = ps_redo_apply(pool, call.requests, (size_t)count, &err);
    Py_END_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++)
        if (call.requests[i].status != PS_OK)
            PyList_SetItem(call.pages, i, Py_NewRef(Py_None));
    PyObject *result = rc == PS_OK ? Py_BuildValue("(OO)", call.pages, Py_None)
                                   : Py_BuildValue("(O(is))", call.pages, rc, err.text);
    call_release(&call);
    return result;
}

static PyObject *
pool_apply(RedoPoolObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "base", "items", "flags", NULL};
    PyObject *key, *base, *items;
    unsigned char flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|B:apply", names, &key, &base, &items,
                                     &flags))
        return NULL;
    PyObject *many = Py_BuildValue("([(OOO)]B)", key, base, items, flags);
    PyObject *both = many != NULL ? pool_apply_many(self, many, NULL) : NULL;
    Py_XDECREF(many);
    if (both == NULL)
        return NULL;
    PyObject *fault = PyTuple_GET_ITEM(both, 1);
    PyObject *result = NULL;
    if (fault == Py_None) {
        result = Py_NewRef(PyList_GET_ITEM(PyTuple_GET_ITEM(both, 0), 0));
    } else {
        ps_error err = {.text = ""};
        const char *text = PyUnicode_AsUTF8(PyTuple_GET_ITEM(fault, 1));
        snprintf(err.text, sizeof err.text, "%s", text != NULL ? text : "");
        ps_raise((int)PyLong_AsLong(PyTuple_GET_ITEM(fault, 0)), &err);
    }
    Py_DECREF(both);
    return result;
}

static PyObject *
pool_close(RedoPoolObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_redo_pool *pool = ps_redo_pool_of((PyObject *)self);
    if (pool == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    ps_redo_pool_close(pool);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *
pool_stop_idle(RedoPoolObject *self, PyObject *args)
{
    double seconds;
    ps_redo_pool *pool = ps_redo_pool_of((PyObject *)self);
    if (pool == NULL || !PyArg_ParseTuple(args, "d:stop_idle", &seconds))
        return NULL;
    uint64_t idle_ms = seconds <= 0 ? 0 : seconds < 1e9 ? (uint64_t)(seconds * 1000) : UINT64_MAX;
    Py_BEGIN_ALLOW_THREADS
    ps_redo_pool_stop_idle(pool, idle_ms);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *
pool_stats(RedoPoolObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_redo_pool *pool = ps_redo_pool_of((PyObject *)self);
    if (pool == NULL)
        return NULL;
    ps_redo_stats stats = ps_redo_pool_stats(pool);
    return Py_BuildValue("{sKsKsdsKsKsI}", "pages", (unsigned long long)stats.pages, "records",
                         (unsigned long long)stats.records, "busy_seconds",
                         (double)stats.busy_ns / 1e9, "started",
                         (unsigned long long)stats.started, "deaths",
                         (unsigned long long)stats.deaths, "running", stats.running);
}

static PyMethodDef pool_methods[] = {
    {"apply", (PyCFunction)(void (*)(void))pool_apply, METH_VARARGS | METH_KEYWORDS,
     "apply(key, base, items, flags=0) -> the page"},
    {"apply_many", (PyCFunction)(void (*)(void))pool_apply_many, METH_VARARGS | METH_KEYWORDS,
     "apply_many(requests, flags=0) -> (pages, the first fault or None)"},
    {"close", (PyCFunction)pool_close, METH_NOARGS, "Ends the helpers; apply then fails."},
    {"stop_idle", (PyCFunction)pool_stop_idle, METH_VARARGS,
     "stop_idle(seconds): ends the helpers not used for so long."},
    {"stats", (PyCFunction)pool_stats, METH_NOARGS, "Counts since the pool was made."},
    {NULL, NULL, 0, NULL}};

static PyTypeObject RedoPoolType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.RedoPool",
    .tp_doc = "Helper processes that make pages from WAL records. Shared by threads.",
    .tp_basicsize = sizeof(RedoPoolObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)pool_init,
    .tp_dealloc = (destructor)pool_dealloc,
    .tp_methods = pool_methods,
};

int
ps_add_redo(PyObject *module)
{
    return PyModule_AddType(module, &RedoPoolType);
}
