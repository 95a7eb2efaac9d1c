/* pagestore._native.Layer: an immutable layer file, opened while it is used. */
#include "store.h"

typedef struct {
    PyObject_HEAD
    ps_layer *layer;
} LayerObject;

static PyTypeObject LayerType;

ps_open_layer *ps_open_layer_of(PyObject *object);

int
ps_source_of(PyObject *object, ps_source *source)
{
    ps_open_layer *open = ps_open_layer_of(object);
    if (open == NULL && !PyObject_TypeCheck(object, &LayerType)) {
        PyErr_SetString(PyExc_TypeError, "an OpenLayer or a Layer is needed");
        return -1;
    }
    *source = open != NULL ? (ps_source){.open = open, .upper = UINT64_MAX}
                           : ps_source_of_file(((LayerObject *)object)->layer);
    return 0;
}

PyObject *
ps_layer_object(ps_layer *layer)
{
    LayerObject *self = (LayerObject *)LayerType.tp_alloc(&LayerType, 0);
    if (self != NULL)
        self->layer = ps_layer_retain(layer);
    return (PyObject *)self;
}

static PyObject *
layer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *path, *known, *lender = Py_None;
    Py_buffer tenant, timeline;
    unsigned long long number;
    static char *names[] = {"path", "tenant", "timeline", "number", "summary", "remote", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&y*y*KO|O:Layer", names,
                                     PyUnicode_FSConverter, &path, &tenant, &timeline, &number,
                                     &known, &lender))
        return NULL;
    ps_layer_id id;
    ps_layer_summary summary;
    ps_error err = {0};
    LayerObject *self = NULL;
    ps_remote *remote;
    if (ps_layer_id_read(&tenant, &timeline, number, &id) == 0 &&
        ps_summary_read(known, &summary) == 0 && ps_remote_of(lender, &remote) == 0)
        self = (LayerObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        int rc = ps_layer_make(&self->layer, PyBytes_AS_STRING(path), &id, &summary, &err);
        if (rc < 0) {
            Py_CLEAR(self);
            ps_raise(rc, &err);
        } else if (remote != NULL) {
            ps_layer_lend(self->layer, remote);
        }
    }
    Py_DECREF(path);
    PyBuffer_Release(&tenant);
    PyBuffer_Release(&timeline);
    return (PyObject *)self;
}

static void
layer_dealloc(LayerObject *self)
{
    ps_layer_release(self->layer);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
layer_verify(LayerObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_layer_verify(self->layer, &err);
    Py_END_ALLOW_THREADS
    if (rc < 0)
        return ps_raise(rc, &err);
    Py_RETURN_NONE;
}

static PyObject *
layer_depth(LayerObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_error err = {0};
    uint64_t weight = 0;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_layer_depth(self->layer, &weight, &err);
    Py_END_ALLOW_THREADS
    return rc < 0 ? ps_raise(rc, &err) : PyLong_FromUnsignedLongLong(weight);
}

static PyObject *
layer_discard(LayerObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_layer_discard(self->layer);
    Py_RETURN_NONE;
}

static PyObject *
layer_let_go(LayerObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_layer_let_go(self->layer);
    Py_RETURN_NONE;
}

/* Where the value under the cursor is appended as (key, lsn, kind, flags, bytes). */
static int
append_head(PyObject *heads, const ps_layer_cursor *cursor)
{
    ps_layer_value_header header;
    const uint8_t *data;
    ps_layer_cursor_value(cursor, &header, &data);
    PyObject *head = Py_BuildValue("(y#KBBI)", (const char *)header.key.b,
                                   (Py_ssize_t)sizeof header.key.b, (unsigned long long)header.lsn,
                                   header.kind, header.flags, (unsigned int)header.length);
    int rc = head != NULL ? PyList_Append(heads, head) : -1;
    Py_XDECREF(head);
    return rc;
}

static PyObject *
layer_heads(LayerObject *self, PyObject *args)
{
    Py_ssize_t limit;
    if (!PyArg_ParseTuple(args, "n:heads", &limit))
        return NULL;
    ps_error err = {0};
    ps_layer_cursor cursor;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_layer_cursor_open(&cursor, self->layer, &err);
    if (rc >= 0)
        rc = ps_layer_cursor_seek(&cursor, &ps_layer_known(self->layer)->min_key, UINT64_MAX, 0,
                                  &err);
    Py_END_ALLOW_THREADS
    PyObject *heads = PyList_New(0);
    while (heads != NULL && rc >= 0 && cursor.valid && PyList_GET_SIZE(heads) < limit) {
        if (append_head(heads, &cursor) < 0)
            Py_CLEAR(heads);
        if (heads != NULL) {
            Py_BEGIN_ALLOW_THREADS
            rc = ps_layer_cursor_next(&cursor, &err);
            Py_END_ALLOW_THREADS
        }
    }
    ps_layer_cursor_close(&cursor);
    if (heads != NULL && rc < 0) {
        Py_DECREF(heads);
        return ps_raise(rc, &err);
    }
    return heads;
}

static PyObject *
layer_summary(LayerObject *self, void *Py_UNUSED(closure))
{
    return ps_summary_make(ps_layer_known(self->layer));
}

static PyObject *
layer_path(LayerObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_DecodeFSDefault(ps_layer_path(self->layer));
}

static PyObject *
layer_readers(LayerObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(ps_layer_readers(self->layer));
}

static PyObject *
layer_used(LayerObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(ps_layer_used(self->layer));
}

static PyMethodDef layer_methods[] = {
    {"verify", (PyCFunction)layer_verify, METH_NOARGS, "Reads and checks every byte."},
    {"heads", (PyCFunction)layer_heads, METH_VARARGS,
     "The first values of the file: (key, lsn, kind, flags, bytes of its payload)."},
    {"depth", (PyCFunction)layer_depth, METH_NOARGS,
     "Reads all: the most that a read has to apply of it; a record weighs 8, a patch 1."},
    {"discard", (PyCFunction)layer_discard, METH_NOARGS,
     "The file goes when nobody reads it any more."},
    {"let_go", (PyCFunction)layer_let_go, METH_NOARGS,
     "Closes the file, which is not here any more, unless somebody reads."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef layer_getset[] = {
    {"path", (getter)layer_path, NULL, NULL, NULL},
    {"readers", (getter)layer_readers, NULL, "How many hold it, this one too.", NULL},
    {"used", (getter)layer_used, NULL, "Second of layers_now at which it was last read.", NULL},
    {"summary", (getter)layer_summary, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyTypeObject LayerType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.Layer",
    .tp_doc = "Layer(path, tenant, timeline, number, summary). See native/core/layer/file.h.",
    .tp_basicsize = sizeof(LayerObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = layer_new,
    .tp_dealloc = (destructor)layer_dealloc,
    .tp_methods = layer_methods,
    .tp_getset = layer_getset,
};

int
ps_add_layer_file(PyObject *module)
{
    return PyModule_AddType(module, &LayerType);
}
