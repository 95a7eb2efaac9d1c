/* Layer summaries, the limits of what is cached, and requests for pages. */
#include <malloc.h>

#include "layer/chunks.h"
#include "store.h"

static PyTypeObject *SummaryType;

static PyStructSequence_Field summary_fields[] = {
    {"kind", "1 delta, 2 image"},
    {"min_key", "18 bytes"},
    {"max_key", "18 bytes, inclusive"},
    {"first_lsn", NULL},
    {"last_lsn", "inclusive"},
    {"entries", "values"},
    {"keys", "distinct keys"},
    {"bytes", "of the file"},
    {NULL, NULL}};

static PyStructSequence_Desc summary_description = {
    .name = "pagestore._native.LayerSummary",
    .doc = "What the catalog keeps of a layer file.",
    .fields = summary_fields,
    .n_in_sequence = 8,
};

int
ps_add_summary(PyObject *module)
{
    SummaryType = PyStructSequence_NewType(&summary_description);
    return SummaryType == NULL ? -1 : PyModule_AddType(module, SummaryType);
}

PyObject *
ps_summary_make(const ps_layer_summary *summary)
{
    PyObject *fields = Py_BuildValue(
        "(By#y#KKKKK)", summary->kind, summary->min_key.b, (Py_ssize_t)PS_KEY_LEN,
        summary->max_key.b, (Py_ssize_t)PS_KEY_LEN, (unsigned long long)summary->first_lsn,
        (unsigned long long)summary->last_lsn, (unsigned long long)summary->entries,
        (unsigned long long)summary->keys, (unsigned long long)summary->bytes);
    if (fields == NULL)
        return NULL;
    PyObject *made = PyObject_CallOneArg((PyObject *)SummaryType, fields);
    Py_DECREF(fields);
    return made;
}

int
ps_summary_read(PyObject *object, ps_layer_summary *summary)
{
    const char *min_key, *max_key;
    Py_ssize_t min_length, max_length;
    unsigned long long first, last, entries, keys, bytes;
    if (!PyTuple_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "a LayerSummary is needed");
        return -1;
    }
    if (!PyArg_ParseTuple(object, "By#y#KKKKK", &summary->kind, &min_key, &min_length, &max_key,
                          &max_length, &first, &last, &entries, &keys, &bytes))
        return -1;
    if (min_length != PS_KEY_LEN || max_length != PS_KEY_LEN) {
        PyErr_SetString(PyExc_ValueError, "a key has 18 bytes");
        return -1;
    }
    memcpy(summary->min_key.b, min_key, PS_KEY_LEN);
    memcpy(summary->max_key.b, max_key, PS_KEY_LEN);
    summary->first_lsn = first;
    summary->last_lsn = last;
    summary->entries = entries;
    summary->keys = keys;
    summary->bytes = bytes;
    return 0;
}

int
ps_layer_id_read(const Py_buffer *tenant, const Py_buffer *timeline, unsigned long long number,
                 ps_layer_id *id)
{
    if (tenant->len != 16 || timeline->len != 16) {
        PyErr_SetString(PyExc_ValueError, "a tenant id and a timeline id have 16 bytes");
        return -1;
    }
    memcpy(id->tenant, tenant->buf, 16);
    memcpy(id->timeline, timeline->buf, 16);
    id->number = number;
    return 0;
}

static PyObject *
parse_pages_request(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer bytes;
    if (!PyArg_ParseTuple(args, "y*", &bytes))
        return NULL;
    ps_pages_request request;
    ps_error err = {0};
    int rc = ps_pages_request_parse(bytes.buf, (size_t)bytes.len, &request, &err);
    PyBuffer_Release(&bytes);
    if (rc < 0)
        return ps_raise(rc, &err);
    return Py_BuildValue("Ky#y#KKnI", (unsigned long long)request.request_id, request.tenant,
                         (Py_ssize_t)16, request.timeline, (Py_ssize_t)16,
                         (unsigned long long)request.request_lsn,
                         (unsigned long long)request.not_modified_since_lsn,
                         (Py_ssize_t)request.block_count, (unsigned)request.wait_ms);
}

static PyObject *
pages_status(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long request_id;
    unsigned code;
    const char *reason, *message;
    if (!PyArg_ParseTuple(args, "KIss", &request_id, &code, &reason, &message))
        return NULL;
    ps_pages_status status = {.code = code, .reason = reason};
    snprintf(status.message, sizeof status.message, "%s", message);
    for (size_t end = strlen(status.message); end > 0 && strlen(message) > end;) {
        /* Cut between characters, so that the string stays UTF-8. */
        int inside = ((uint8_t)message[end] & 0xC0) == 0x80;
        status.message[end] = '\0';
        if (!inside)
            break;
        end--;
    }
    uint8_t out[PS_PAGES_STATUS_BYTES];
    size_t length = ps_pages_status_encode(request_id, &status, out);
    return PyBytes_FromStringAndSize((char *)out, (Py_ssize_t)length);
}

static PyObject *
set_limits(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    Py_ssize_t block_bytes = (Py_ssize_t)PS_CACHE_DEFAULT_BYTES;
    Py_ssize_t index_bytes = (Py_ssize_t)PS_LAYERS_DEFAULT_INDEX_BYTES;
    Py_ssize_t chunk_bytes = (Py_ssize_t)PS_CHUNKS_DEFAULT_BYTES;
    unsigned open_files = PS_LAYERS_DEFAULT_OPEN;
    static char *names[] = {"block_cache_bytes", "index_bytes", "open_files", "chunk_bytes", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$nnIn:set_store_limits", names, &block_bytes,
                                     &index_bytes, &open_files, &chunk_bytes))
        return NULL;
    if (block_bytes < 0 || index_bytes < 0 || chunk_bytes < 0) {
        PyErr_SetString(PyExc_ValueError, "a limit is not negative");
        return NULL;
    }
    ps_cache_limit((size_t)block_bytes);
    ps_layers_limit(open_files, (size_t)index_bytes);
    ps_chunks_limit((size_t)chunk_bytes);
    Py_RETURN_NONE;
}

static PyObject *
store_stats(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    ps_cache_stats cache = ps_cache_read_stats();
    ps_layers_stats layers = ps_layers_read_stats();
    ps_chunks_stats chunks = ps_chunks_read_stats();
    return Py_BuildValue("{s:K,s:K,s:K,s:I,s:I,s:K,s:K,s:K}",
                         "block_hits", (unsigned long long)cache.hits,
                         "block_misses", (unsigned long long)cache.misses, "block_bytes",
                         (unsigned long long)cache.bytes, "open_files", layers.open_files,
                         "loaded_layers", layers.loaded,
                         "index_bytes", (unsigned long long)layers.index_bytes,
                         "used_chunk_bytes", (unsigned long long)chunks.used_bytes,
                         "kept_chunk_bytes", (unsigned long long)chunks.kept_bytes);
}

static PyObject *
layer_faults(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    ps_error last;
    uint64_t count = ps_layers_faults(&last);
    return Py_BuildValue("Ks", (unsigned long long)count, last.text);
}

static PyObject *
trim_memory(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    Py_BEGIN_ALLOW_THREADS
    ps_chunks_trim();
    malloc_trim(0);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *
limit_malloc(PyObject *Py_UNUSED(module), PyObject *args)
{
    int arenas, mapped_bytes, top_bytes;
    if (!PyArg_ParseTuple(args, "iii:limit_malloc", &arenas, &mapped_bytes, &top_bytes))
        return NULL;
    if (mallopt(M_ARENA_MAX, arenas) != 1 || mallopt(M_MMAP_THRESHOLD, mapped_bytes) != 1 ||
        mallopt(M_TRIM_THRESHOLD, top_bytes) != 1) {
        PyErr_SetString(PyExc_ValueError, "malloc cannot be limited so");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
layer_filter_bytes(PyObject *Py_UNUSED(module), PyObject *keys)
{
    unsigned long long count = PyLong_AsUnsignedLongLong(keys);
    if (count == (unsigned long long)-1 && PyErr_Occurred() != NULL)
        return NULL;
    return PyLong_FromUnsignedLong(ps_layer_filter_bytes(count));
}

static PyObject *
layers_now(PyObject *Py_UNUSED(module), PyObject *argument)
{
    unsigned long second = PyLong_AsUnsignedLong(argument);
    if (second == (unsigned long)-1 && PyErr_Occurred() != NULL)
        return NULL;
    ps_layers_now((uint32_t)second);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"parse_pages_request", parse_pages_request, METH_VARARGS,
     "Of a serialized GetPagesRequest: (request_id, tenant, timeline, request_lsn, "
     "not_modified_since, blocks, wait_ms)."},
    {"pages_status", pages_status, METH_VARARGS,
     "pages_status(request_id, code, reason, message): a GetPagesResponse that is a status."},
    {"set_store_limits", (PyCFunction)(void (*)(void))set_limits, METH_VARARGS | METH_KEYWORDS,
     "Process-wide limits: cached blocks, layer indexes, open layer files, arenas' chunks."},
    {"store_stats", store_stats, METH_NOARGS, "Counts of the caches."},
    {"layer_faults", layer_faults, METH_NOARGS, "layer_faults() -> (how often, the last words)"},
    {"layer_filter_bytes", layer_filter_bytes, METH_O, "layer_filter_bytes(keys) -> bytes"},
    {"layers_now", layers_now, METH_O, "layers_now(second): by which the use of layers is noted."},
    {"limit_malloc", limit_malloc, METH_VARARGS,
     "limit_malloc(arenas, mapped_bytes, top_bytes): see mallopt(3)."},
    {"trim_memory", trim_memory, METH_NOARGS, "Returns memory that nothing uses to the system."},
    {NULL, NULL, 0, NULL}};

int
ps_add_store(PyObject *module)
{
    if (PyModule_AddFunctions(module, functions) < 0 || ps_add_summary(module) < 0 ||
        ps_add_layers(module) < 0 || ps_add_layer_file(module) < 0 || ps_add_snapshot(module) < 0 ||
        ps_add_timeline(module) < 0 || ps_add_compaction(module) < 0 ||
        ps_add_page_readers(module) < 0 || ps_add_needed(module) < 0 ||
        ps_add_remote(module) < 0)
        return -1;
    return 0;
}
