/* pagestore._native.Compaction: layers made into others, a file at a time. */
#include "redo.h"
#include "store.h"
#include "store/compaction.h"

typedef struct {
    PyObject_HEAD
    ps_compaction *work;
    PyObject *redo; /* the pool, as long as the work uses it */
} CompactionObject;

static PyTypeObject CompactionType;

static int
layers_of(PyObject *tuple, ps_layer **layers)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        ps_source source;
        if (ps_source_of(PyTuple_GET_ITEM(tuple, i), &source) < 0)
            return -1;
        if (source.file == NULL) {
            PyErr_SetString(PyExc_TypeError, "a Layer is needed");
            return -1;
        }
        layers[i] = source.file;
    }
    return 0;
}

static int
open_work(CompactionObject *self, PyObject *tuple, PyObject *snapshot_object,
          const ps_compaction_options *options)
{
    const ps_snapshot *snapshot = ps_snapshot_of(snapshot_object);
    ps_redo_pool *redo;
    if (snapshot == NULL || ps_redo_pool_or_none(self->redo, &redo) < 0)
        return -1;
    size_t count = (size_t)PyTuple_GET_SIZE(tuple);
    ps_layer **layers = PyMem_Calloc(count + 1, sizeof(ps_layer *));
    if (layers == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    ps_error err = {0};
    int rc = layers_of(tuple, layers);
    if (rc == 0) {
        Py_BEGIN_ALLOW_THREADS
        rc = ps_compaction_open(&self->work, layers, count, snapshot, redo, options, &err);
        Py_END_ALLOW_THREADS
        if (rc < 0)
            ps_raise(rc, &err);
    }
    PyMem_Free(layers);
    return rc;
}

/* LSNs of a tuple, which may not be there; 0, or -1 with an exception. */
static int
read_lsns(PyObject *tuple, uint64_t **lsns, size_t *count)
{
    if (tuple == NULL)
        return 0;
    *count = (size_t)PyTuple_GET_SIZE(tuple);
    *lsns = ps_lsns_of(tuple);
    return *lsns == NULL ? -1 : 0;
}

static PyObject *
compaction_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *layers, *snapshot, *redo;
    unsigned long long file_bytes = 0, image_lsn = 0, open_weight = 0, weight = 0, bytes = 0;
    const char *low = NULL;
    Py_ssize_t low_length = 0;
    PyObject *boundaries = NULL, *bounds = NULL;
    int ends = 0;
    uint64_t *kept = NULL, *uppers = NULL;
    size_t bounded = 0;
    static char *names[] = {"layers", "snapshot", "redo", "file_bytes", "open_weight",
                            "chain_weight", "chain_bytes", "image_lsn", "low",
                            "boundaries", "ends", "uppers", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$KKKKKy#O!pO!:Compaction", names, &layers,
                                     &snapshot, &redo, &file_bytes, &open_weight, &weight, &bytes,
                                     &image_lsn, &low, &low_length, &PyTuple_Type, &boundaries,
                                     &ends, &PyTuple_Type, &bounds))
        return NULL;
    if (low != NULL && low_length != PS_KEY_LEN) {
        PyErr_SetString(PyExc_ValueError, "a key has 18 bytes");
        return NULL;
    }
    ps_compaction_options options = {
        .file_bytes = file_bytes,
        .bounds = {.open_weight = open_weight, .weight = weight, .bytes = bytes},
        .image_lsn = image_lsn,
        .kept = {.ends = ends}};
    if (low != NULL)
        memcpy(options.low.b, low, PS_KEY_LEN);
    PyObject *tuple = PySequence_Tuple(layers);
    CompactionObject *self =
        tuple == NULL ? NULL : (CompactionObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->redo = Py_NewRef(redo);
        int rc = read_lsns(boundaries, &kept, &options.kept.count);
        if (rc == 0)
            rc = read_lsns(bounds, &uppers, &bounded);
        if (rc == 0 && uppers != NULL && bounded != (size_t)PyTuple_GET_SIZE(tuple)) {
            PyErr_SetString(PyExc_ValueError, "an upper LSN is needed for each layer");
            rc = -1;
        }
        options.kept.boundaries = kept;
        options.uppers = uppers;
        if (rc < 0 || open_work(self, tuple, snapshot, &options) < 0)
            Py_CLEAR(self);
        PyMem_RawFree(kept);
        PyMem_RawFree(uppers);
    }
    Py_XDECREF(tuple);
    return (PyObject *)self;
}

static void
compaction_dealloc(CompactionObject *self)
{
    ps_compaction_free(self->work);
    Py_XDECREF(self->redo);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
compaction_write(CompactionObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *path;
    Py_buffer tenant, timeline;
    unsigned long long number;
    int level;
    static char *names[] = {"path", "tenant", "timeline", "number", "level", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&y*y*K$i:write", names,
                                     PyUnicode_FSConverter, &path, &tenant, &timeline, &number,
                                     &level))
        return NULL;
    ps_layer_id id;
    ps_layer_summary summary;
    ps_error err = {0};
    int written = 0, rc = -1;
    int parsed = ps_layer_id_read(&tenant, &timeline, number, &id);
    if (parsed == 0) {
        Py_BEGIN_ALLOW_THREADS
        rc = ps_compaction_write(self->work, PyBytes_AS_STRING(path), &id, level, &summary,
                                 &written, &err);
        Py_END_ALLOW_THREADS
        if (rc < 0)
            ps_raise(rc, &err);
    }
    Py_DECREF(path);
    PyBuffer_Release(&tenant);
    PyBuffer_Release(&timeline);
    if (parsed < 0 || rc < 0)
        return NULL;
    return written ? ps_summary_make(&summary) : Py_NewRef(Py_None);
}

static PyObject *
compaction_pause(CompactionObject *self, PyObject *paused)
{
    int truth = PyObject_IsTrue(paused);
    if (truth < 0)
        return NULL;
    ps_compaction_pause(self->work, truth);
    Py_RETURN_NONE;
}

static PyObject *
compaction_cancel(CompactionObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_compaction_cancel(self->work);
    Py_RETURN_NONE;
}

static PyObject *
compaction_stats(CompactionObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_compaction_stats stats = ps_compaction_read_stats(self->work);
    unsigned long long counts[] = {stats.bytes_read, stats.values, stats.images, stats.refused,
                                   stats.dead};
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K}", "bytes_read", counts[0], "values", counts[1],
                         "images", counts[2], "refused", counts[3], "dead", counts[4]);
}

static PyMethodDef compaction_methods[] = {
    {"write", (PyCFunction)(void (*)(void))compaction_write, METH_VARARGS | METH_KEYWORDS,
     "write(path, tenant, timeline, number, *, level) -> LayerSummary, or None at the end"},
    {"pause", (PyCFunction)compaction_pause, METH_O, "Holds another thread's write up, or not."},
    {"cancel", (PyCFunction)compaction_cancel, METH_NOARGS, "Ends another thread's write."},
    {"stats", (PyCFunction)compaction_stats, METH_NOARGS, "Counts, when nothing is being written."},
    {NULL, NULL, 0, NULL}};

static PyTypeObject CompactionType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.Compaction",
    .tp_doc = "A merge of layers, or images of what they have. See store/compaction.h.",
    .tp_basicsize = sizeof(CompactionObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = compaction_new,
    .tp_dealloc = (destructor)compaction_dealloc,
    .tp_methods = compaction_methods,
};

int
ps_add_compaction(PyObject *module)
{
    return PyModule_AddType(module, &CompactionType);
}
