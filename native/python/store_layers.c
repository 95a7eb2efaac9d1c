/* pagestore._native.OpenLayer and LayerWriter: what layers are made with. */
#include "layer/writer.h"
#include "layer/codec.h"
#include "store.h"

typedef struct {
    PyObject_HEAD
    ps_open_layer *layer;
} OpenLayerObject;

static PyTypeObject OpenLayerType;

ps_open_layer *ps_open_layer_of(PyObject *object);

ps_open_layer *
ps_open_layer_of(PyObject *object)
{
    return PyObject_TypeCheck(object, &OpenLayerType) ? ((OpenLayerObject *)object)->layer : NULL;
}

static PyObject *
open_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":OpenLayer", names))
        return NULL;
    OpenLayerObject *self = (OpenLayerObject *)type->tp_alloc(type, 0);
    ps_error err = {0};
    int rc = self == NULL ? 0 : ps_open_layer_make(&self->layer, &err);
    if (rc < 0) {
        Py_DECREF(self);
        return ps_raise(rc, &err);
    }
    return (PyObject *)self;
}

static void
open_dealloc(OpenLayerObject *self)
{
    ps_open_layer_release(self->layer);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
open_put(OpenLayerObject *self, PyObject *argument)
{
    const ps_batch *batch = ps_batch_of(argument);
    if (batch == NULL)
        return NULL;
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_open_layer_put(self->layer, batch, &err);
    Py_END_ALLOW_THREADS
    if (rc < 0)
        return ps_raise(rc, &err);
    Py_RETURN_NONE;
}

static PyObject *
open_freeze(OpenLayerObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_open_layer_freeze(self->layer);
    Py_RETURN_NONE;
}

static PyObject *
open_flush(OpenLayerObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *path;
    Py_buffer tenant, timeline;
    unsigned long long number;
    int level = PS_LEVEL_LZ4;
    static char *names[] = {"path", "tenant", "timeline", "number", "level", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&y*y*K|$i:flush", names,
                                     PyUnicode_FSConverter, &path, &tenant, &timeline, &number,
                                     &level))
        return NULL;
    ps_layer_id id;
    ps_layer_summary summary;
    ps_error err = {0};
    int rc = -1;
    int parsed = ps_layer_id_read(&tenant, &timeline, number, &id);
    if (parsed == 0) {
        Py_BEGIN_ALLOW_THREADS
        rc = ps_open_layer_flush(self->layer, PyBytes_AS_STRING(path), &id, level, &summary, &err);
        Py_END_ALLOW_THREADS
        if (rc < 0)
            ps_raise(rc, &err);
    }
    Py_DECREF(path);
    PyBuffer_Release(&tenant);
    PyBuffer_Release(&timeline);
    return parsed == 0 && rc == PS_OK ? ps_summary_make(&summary) : NULL;
}

/* The closure names the field of ps_open_stats by its offset. */
static PyObject *
open_stat(OpenLayerObject *self, void *closure)
{
    ps_open_stats stats = ps_open_layer_stats(self->layer);
    uint64_t value;
    memcpy(&value, (const char *)&stats + (size_t)closure, sizeof value);
    return PyLong_FromUnsignedLongLong(value);
}

static PyMethodDef open_methods[] = {
    {"put", (PyCFunction)open_put, METH_O, "Takes a batch in LSN order."},
    {"freeze", (PyCFunction)open_freeze, METH_NOARGS, "Takes no more from now on."},
    {"flush", (PyCFunction)(void (*)(void))open_flush, METH_VARARGS | METH_KEYWORDS,
     "flush(path, tenant, timeline, number, *, level=0): freezes and writes a delta layer."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef open_getset[] = {
    {"nbytes", (getter)open_stat, NULL, NULL, (void *)offsetof(ps_open_stats, bytes)},
    {"count", (getter)open_stat, NULL, NULL, (void *)offsetof(ps_open_stats, entries)},
    {"depth", (getter)open_stat, NULL, "See Layer.depth.",
     (void *)offsetof(ps_open_stats, depth)},
    {"first_lsn", (getter)open_stat, NULL, NULL, (void *)offsetof(ps_open_stats, first_lsn)},
    {"last_lsn", (getter)open_stat, NULL, NULL, (void *)offsetof(ps_open_stats, last_lsn)},
    {NULL, NULL, NULL, NULL, NULL}};

static PyTypeObject OpenLayerType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.OpenLayer",
    .tp_doc = "Values in memory: one writer, many readers. See native/core/layer/open.h.",
    .tp_basicsize = sizeof(OpenLayerObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = open_new,
    .tp_dealloc = (destructor)open_dealloc,
    .tp_methods = open_methods,
    .tp_getset = open_getset,
};

typedef struct {
    PyObject_HEAD
    ps_layer_writer *writer;
} WriterObject;

static int
writer_init(WriterObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *path;
    Py_buffer tenant, timeline;
    unsigned long long number;
    unsigned char kind;
    int level = 1;
    static char *names[] = {"path", "tenant", "timeline", "number", "kind", "level", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&y*y*KB|$i:LayerWriter", names,
                                     PyUnicode_FSConverter, &path, &tenant, &timeline, &number,
                                     &kind, &level))
        return -1;
    ps_layer_id id;
    ps_error err = {0};
    int rc = ps_layer_id_read(&tenant, &timeline, number, &id);
    if (rc == 0) {
        ps_layer_writer_free(self->writer);
        rc = ps_layer_writer_make(&self->writer, PyBytes_AS_STRING(path), &id, kind, level, &err);
        if (rc < 0)
            ps_raise(rc, &err);
    }
    Py_DECREF(path);
    PyBuffer_Release(&tenant);
    PyBuffer_Release(&timeline);
    return rc < 0 ? -1 : 0;
}

static void
writer_dealloc(WriterObject *self)
{
    ps_layer_writer_free(self->writer);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int
writer_usable(const WriterObject *self)
{
    if (self->writer == NULL)
        PyErr_SetString(PyExc_ValueError, "the layer writer is closed");
    return self->writer != NULL;
}

/* Up to the first value that does not come after the one before; *at says how far. */
static int
put_range(ps_layer_writer *writer, const ps_batch *batch, size_t *at, ps_error *err)
{
    int rc = PS_OK;
    for (; *at < batch->count; ++*at) {
        const ps_entry *entry = &batch->entries[*at];
        if (!ps_layer_writer_fits(writer, &entry->key, entry->lsn))
            break;
        rc = ps_layer_writer_add(writer, &entry->key, entry->lsn, entry->kind, entry->flags,
                                 batch->data + entry->offset, entry->length, err);
        if (rc < 0)
            break;
    }
    return rc;
}

static PyObject *
writer_put(WriterObject *self, PyObject *args)
{
    PyObject *object;
    Py_ssize_t start = 0;
    if (!writer_usable(self) || !PyArg_ParseTuple(args, "O|n", &object, &start))
        return NULL;
    const ps_batch *batch = ps_batch_of(object);
    if (batch == NULL)
        return NULL;
    size_t at = start < 0 ? 0 : (size_t)start;
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = put_range(self->writer, batch, &at, &err);
    Py_END_ALLOW_THREADS
    return rc < 0 ? ps_raise(rc, &err) : PyLong_FromSize_t(at);
}

static PyObject *
writer_finish(WriterObject *self, PyObject *Py_UNUSED(ignored))
{
    if (!writer_usable(self))
        return NULL;
    ps_layer_summary summary;
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_layer_writer_finish(self->writer, &summary, &err);
    ps_layer_writer_free(self->writer);
    Py_END_ALLOW_THREADS
    self->writer = NULL;
    return rc < 0 ? ps_raise(rc, &err) : ps_summary_make(&summary);
}

static PyObject *
writer_abort(WriterObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_layer_writer_free(self->writer);
    self->writer = NULL;
    Py_RETURN_NONE;
}

static PyObject *
writer_nbytes(WriterObject *self, void *Py_UNUSED(closure))
{
    return writer_usable(self)
               ? PyLong_FromUnsignedLongLong(ps_layer_writer_bytes(self->writer))
               : NULL;
}

static PyMethodDef writer_methods[] = {
    {"put", (PyCFunction)writer_put, METH_VARARGS,
     "put(batch, start=0) -> the index behind the last value taken"},
    {"finish", (PyCFunction)writer_finish, METH_NOARGS, "Syncs the file and says what it holds."},
    {"abort", (PyCFunction)writer_abort, METH_NOARGS, "Removes the file."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef writer_getset[] = {
    {"nbytes", (getter)writer_nbytes, NULL, "Bytes of the file so far.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyTypeObject WriterType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.LayerWriter",
    .tp_doc = "Writes a layer file from sorted values. Not thread-safe.",
    .tp_basicsize = sizeof(WriterObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)writer_init,
    .tp_dealloc = (destructor)writer_dealloc,
    .tp_methods = writer_methods,
    .tp_getset = writer_getset,
};

int
ps_add_layers(PyObject *module)
{
    return PyModule_AddType(module, &OpenLayerType) < 0 ||
                   PyModule_AddType(module, &WriterType) < 0
               ? -1
               : 0;
}
