#include "batch.h"
#include "module.h"
#include "wal/align.h"
#include "wal/ingest.h"
#include "wal/meta_table.h"

#define CAPSULE_NAME "pagestore.meta_source"

typedef struct {
    PyObject_HEAD
    ps_meta_table *table;
} MetaTableObject;

typedef struct {
    PyObject_HEAD
    ps_ingest *ingest;
    int consistency;
    int busy;
} IngestorObject;

static PyTypeObject MetaTableType, IngestorType;
static PyTypeObject *StepType;

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

/* --- MetaTable */

static PyObject *
meta_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":MetaTable", (char *[]){NULL}))
        return NULL;
    MetaTableObject *self = (MetaTableObject *)type->tp_alloc(type, 0);
    if (self != NULL && (self->table = ps_meta_table_new()) == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void
meta_dealloc(MetaTableObject *self)
{
    ps_meta_table_free(self->table);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static void
release_owner(PyObject *capsule)
{
    Py_XDECREF((PyObject *)PyCapsule_GetContext(capsule));
}

static PyObject *
meta_source(MetaTableObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *capsule =
        PyCapsule_New((void *)ps_meta_table_source(self->table), CAPSULE_NAME, release_owner);
    if (capsule != NULL && PyCapsule_SetContext(capsule, Py_NewRef(self)) < 0) {
        Py_DECREF(self);
        Py_CLEAR(capsule);
    }
    return capsule;
}

static int
check_key(const Py_buffer *key)
{
    if (key->len == PS_KEY_LEN)
        return 0;
    PyErr_SetString(PyExc_ValueError, "a key has 18 bytes");
    return -1;
}

static PyObject *
meta_put(MetaTableObject *self, PyObject *args)
{
    Py_buffer key, value;
    if (!PyArg_ParseTuple(args, "y*y*:put", &key, &value))
        return NULL;
    int rc = check_key(&key);
    if (rc == 0 &&
        ps_meta_table_put(self->table, key.buf, value.buf, (size_t)value.len) != PS_OK) {
        PyErr_NoMemory();
        rc = -1;
    }
    PyBuffer_Release(&key);
    PyBuffer_Release(&value);
    return rc == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
meta_remove(MetaTableObject *self, PyObject *args)
{
    Py_buffer key;
    if (!PyArg_ParseTuple(args, "y*:remove", &key))
        return NULL;
    int rc = check_key(&key);
    if (rc == 0)
        ps_meta_table_remove(self->table, key.buf);
    PyBuffer_Release(&key);
    return rc == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
meta_apply(MetaTableObject *self, PyObject *argument)
{
    ps_batch *batch = ps_batch_of(argument);
    if (batch == NULL)
        return NULL;
    if (ps_meta_table_apply(self->table, batch) != PS_OK)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static int
add_item(void *arg, const ps_key *key, const uint8_t *value, size_t length)
{
    PyObject *item = Py_BuildValue("y#y#", key->b, (Py_ssize_t)PS_KEY_LEN, (const char *)value,
                                   (Py_ssize_t)length);
    int rc = item == NULL ? -1 : PyList_Append(arg, item);
    Py_XDECREF(item);
    return rc;
}

static PyObject *
meta_items(MetaTableObject *self, PyObject *args)
{
    Py_buffer low, high;
    if (!PyArg_ParseTuple(args, "y*y*:items", &low, &high))
        return NULL;
    PyObject *list = check_key(&low) == 0 && check_key(&high) == 0 ? PyList_New(0) : NULL;
    if (list != NULL) {
        const ps_meta_source *source = ps_meta_table_source(self->table);
        source->scan(source->context, low.buf, high.buf, 0, add_item, list, NULL);
        if (PyErr_Occurred())
            Py_CLEAR(list);
    }
    PyBuffer_Release(&low);
    PyBuffer_Release(&high);
    return list;
}

static Py_ssize_t
meta_length(MetaTableObject *self)
{
    return (Py_ssize_t)ps_meta_table_count(self->table);
}

static PyMethodDef meta_methods[] = {
    {"meta_source", (PyCFunction)meta_source, METH_NOARGS, "A capsule for WalIngestor.feed."},
    {"put", (PyCFunction)meta_put, METH_VARARGS, "put(key, value)"},
    {"remove", (PyCFunction)meta_remove, METH_VARARGS, "remove(key)"},
    {"apply", (PyCFunction)meta_apply, METH_O, "apply(batch): its metadata; pages are left."},
    {"items", (PyCFunction)meta_items, METH_VARARGS, "items(low, high) -> [(key, value)]"},
    {NULL, NULL, 0, NULL}};

static PySequenceMethods meta_sequence = {.sq_length = (lenfunc)meta_length};

static PyTypeObject MetaTableType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.MetaTable",
    .tp_doc = "The latest value of each metadata key, in memory; for tests and tools.",
    .tp_basicsize = sizeof(MetaTableObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = meta_new,
    .tp_dealloc = (destructor)meta_dealloc,
    .tp_methods = meta_methods,
    .tp_as_sequence = &meta_sequence,
};

/* --- WalIngestor */

static PyObject *
ingestor_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"start_lsn", "prev_record_lsn", "consistency", NULL};
    unsigned long long start, prev;
    int consistency = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KK|$p:WalIngestor", names, &start, &prev,
                                     &consistency))
        return NULL;
    IngestorObject *self = (IngestorObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    ps_error err = {0};
    int rc = ps_ingest_new(start, prev, &self->ingest, &err);
    if (rc != PS_OK) {
        Py_DECREF(self);
        return ps_raise(rc, &err);
    }
    self->consistency = consistency;
    return (PyObject *)self;
}

static void
ingestor_dealloc(IngestorObject *self)
{
    ps_ingest_free(self->ingest);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
barrier_of(const ps_ingest_step *step, uint64_t lsn)
{
    if (!step->has_clone)
        return Py_NewRef(Py_None);
    const ps_clone *c = &step->clone;
    return Py_BuildValue("sK[(IIII)]", "clone_database", (unsigned long long)lsn, c->src_spc,
                         c->src_db, c->dst_spc, c->dst_db);
}

static PyObject *
make_step(const ps_ingest_step *step, uint64_t lsn)
{
    PyObject *result = PyStructSequence_New(StepType);
    if (result == NULL)
        return NULL;
    PyStructSequence_SetItem(result, 0, PyLong_FromSize_t(step->consumed));
    PyStructSequence_SetItem(result, 1, PyLong_FromUnsignedLongLong(step->records));
    PyStructSequence_SetItem(result, 2, barrier_of(step, lsn));
    if (PyErr_Occurred())
        Py_CLEAR(result);
    return result;
}

static PyObject *
run_feed(IngestorObject *self, const Py_buffer *chunk, const ps_meta_source *source,
         ps_batch *batch, ps_batch *checks)
{
    ps_ingest_step step;
    ps_error err = {0};
    int rc;
    self->busy = 1;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_ingest_feed(self->ingest, chunk->buf, (size_t)chunk->len, source, batch, checks,
                        &step, &err);
    Py_END_ALLOW_THREADS
    self->busy = 0;
    if (rc != PS_OK)
        return ps_raise(rc, &err);
    return make_step(&step, ps_ingest_where(self->ingest).last_record_lsn);
}

static PyObject *
ingestor_feed(IngestorObject *self, PyObject *args)
{
    Py_buffer chunk;
    PyObject *source, *batch_object, *checks_object = Py_None;
    if (!PyArg_ParseTuple(args, "y*OO|O:feed", &chunk, &source, &batch_object, &checks_object))
        return NULL;
    PyObject *result = NULL;
    ps_batch *checks = NULL;
    ps_batch *batch = ps_batch_of(batch_object);
    if (batch != NULL && checks_object != Py_None)
        checks = ps_batch_of(checks_object);
    PyObject *capsule =
        PyErr_Occurred() ? NULL : PyObject_CallMethod(source, "meta_source", NULL);
    const ps_meta_source *meta =
        capsule == NULL ? NULL : PyCapsule_GetPointer(capsule, CAPSULE_NAME);
    if (self->busy)
        PyErr_SetString(PyExc_RuntimeError, "a WalIngestor is fed by one thread at a time");
    else if (meta != NULL)
        result = run_feed(self, &chunk, meta, batch, self->consistency ? checks : NULL);
    Py_XDECREF(capsule);
    PyBuffer_Release(&chunk);
    return result;
}

static PyObject *
get_next_lsn(IngestorObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(ps_ingest_where(self->ingest).next_lsn);
}

static PyObject *
get_last_record_lsn(IngestorObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(ps_ingest_where(self->ingest).last_record_lsn);
}

static PyObject *
get_prev_record_lsn(IngestorObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(ps_ingest_where(self->ingest).prev_record_lsn);
}

static PyMethodDef ingestor_methods[] = {
    {"feed", (PyCFunction)ingestor_feed, METH_VARARGS,
     "feed(chunk, source, batch, checks=None) -> Step"},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef ingestor_getset[] = {
    {"next_lsn", (getter)get_next_lsn, NULL, "Where the next chunk must begin.", NULL},
    {"last_record_lsn", (getter)get_last_record_lsn, NULL, "End of the last whole record.", NULL},
    {"prev_record_lsn", (getter)get_prev_record_lsn, NULL, "Start of that record.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyTypeObject IngestorType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.WalIngestor",
    .tp_doc = "WAL in, versioned values out. See native/core/wal/ingest.h.",
    .tp_basicsize = sizeof(IngestorObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = ingestor_new,
    .tp_dealloc = (destructor)ingestor_dealloc,
    .tp_methods = ingestor_methods,
    .tp_getset = ingestor_getset,
};

static PyStructSequence_Field step_fields[] = {
    {"consumed", "bytes of the chunk that were taken"},
    {"records", "whole records in them"},
    {"barrier", "None, or (kind, lsn, arguments): see native/core/wal/ingest.h"},
    {NULL, NULL}};

static PyStructSequence_Desc step_description = {
    .name = "pagestore._native.Step",
    .doc = "What a feed did.",
    .fields = step_fields,
    .n_in_sequence = 3};

static PyMethodDef functions[] = {
    {"wal_align", wal_align, METH_VARARGS,
     "wal_align(data, lsn, limit, known_start, known_prev) -> (end_lsn, prev_lsn) or None"},
    {NULL, NULL, 0, NULL}};

int
ps_add_wal(PyObject *module)
{
    StepType = PyStructSequence_NewType(&step_description);
    if (StepType == NULL || PyModule_AddObjectRef(module, "Step", (PyObject *)StepType) < 0)
        return -1;
    if (PyModule_AddType(module, &MetaTableType) < 0 ||
        PyModule_AddType(module, &IngestorType) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
