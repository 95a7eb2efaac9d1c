#include "batch.h"

typedef struct {
    PyObject_HEAD
    ps_batch batch;
} BatchObject;

static PyTypeObject BatchType;

ps_batch *
ps_batch_of(PyObject *object)
{
    if (!PyObject_TypeCheck(object, &BatchType)) {
        PyErr_SetString(PyExc_TypeError, "a pagestore._native.Batch is needed");
        return NULL;
    }
    return &((BatchObject *)object)->batch;
}

static int
batch_init(BatchObject *self, PyObject *args, PyObject *kwargs)
{
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Batch", (char *[]){NULL}))
        return -1;
    ps_batch_init(&self->batch);
    return 0;
}

static void
batch_dealloc(BatchObject *self)
{
    ps_batch_free(&self->batch);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static Py_ssize_t
batch_length(BatchObject *self)
{
    return (Py_ssize_t)self->batch.count;
}

static PyObject *
batch_put(BatchObject *self, PyObject *args)
{
    Py_buffer key, payload;
    unsigned long long lsn;
    unsigned char kind, flags;
    if (!PyArg_ParseTuple(args, "y*KBBy*", &key, &lsn, &kind, &flags, &payload))
        return NULL;
    PyObject *result = NULL;
    uint64_t offset;
    if (key.len != PS_KEY_LEN || payload.len > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "a key has 18 bytes and a payload less than 4 GiB");
    } else if (ps_batch_payload(&self->batch, payload.buf, (size_t)payload.len, &offset) < 0 ||
               ps_batch_entry(&self->batch, key.buf, kind, flags, lsn, offset,
                              (uint32_t)payload.len) < 0) {
        PyErr_NoMemory();
    } else {
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&key);
    PyBuffer_Release(&payload);
    return result;
}

static PyObject *
batch_item(BatchObject *self, Py_ssize_t index)
{
    if (index < 0 || (size_t)index >= self->batch.count) {
        PyErr_SetString(PyExc_IndexError, "batch index out of range");
        return NULL;
    }
    const ps_entry *entry = &self->batch.entries[index];
    return Py_BuildValue("y#KBBy#", entry->key.b, (Py_ssize_t)PS_KEY_LEN,
                         (unsigned long long)entry->lsn, entry->kind, entry->flags,
                         (const char *)self->batch.data + entry->offset,
                         (Py_ssize_t)entry->length);
}

static PyObject *
batch_clear(BatchObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_batch_clear(&self->batch);
    Py_RETURN_NONE;
}

static PyObject *
batch_nbytes(BatchObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->batch.data_length + self->batch.count * sizeof(ps_entry));
}

static PyMethodDef batch_methods[] = {
    {"put", (PyCFunction)batch_put, METH_VARARGS, "put(key, lsn, kind, flags, payload)"},
    {"clear", (PyCFunction)batch_clear, METH_NOARGS, "Forgets the entries, keeps the memory."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef batch_getset[] = {
    {"nbytes", (getter)batch_nbytes, NULL, "Bytes of payloads and entries.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PySequenceMethods batch_sequence = {
    .sq_length = (lenfunc)batch_length,
    .sq_item = (ssizeargfunc)batch_item,
};

static PyTypeObject BatchType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.Batch",
    .tp_doc = "Values in WAL order; item i is (key, lsn, kind, flags, payload).",
    .tp_basicsize = sizeof(BatchObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)batch_init,
    .tp_dealloc = (destructor)batch_dealloc,
    .tp_methods = batch_methods,
    .tp_getset = batch_getset,
    .tp_as_sequence = &batch_sequence,
};

int
ps_add_batch(PyObject *module)
{
    return PyModule_AddType(module, &BatchType);
}
