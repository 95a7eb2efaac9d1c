/* pagestore._native.Snapshot: an immutable view of a timeline's layers. */
#include "redo.h"
#include "store.h"

typedef struct {
    PyObject_HEAD
    ps_snapshot *snapshot;
    ps_meta_source meta;
} SnapshotObject;

static PyTypeObject SnapshotType;

PyObject *
ps_snapshot_object(ps_snapshot *snapshot)
{
    if (snapshot == NULL)
        return PyErr_NoMemory();
    SnapshotObject *self = (SnapshotObject *)SnapshotType.tp_alloc(&SnapshotType, 0);
    if (self == NULL) {
        ps_snapshot_release(snapshot);
        return NULL;
    }
    self->snapshot = snapshot;
    self->meta = ps_snapshot_meta_source(snapshot);
    return (PyObject *)self;
}

/* The layers of a sequence, as sources, for PyMem_Free; NULL with an exception set. The list
 * that it keeps holds them. */
static ps_source *
sources_of(PyObject *sequence, PyObject **list)
{
    *list = PySequence_Tuple(sequence);
    if (*list == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(*list);
    ps_source *sources = PyMem_Calloc((size_t)count + 1, sizeof *sources);
    if (sources == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; sources != NULL && i < count; i++) {
        if (ps_source_of(PyTuple_GET_ITEM(*list, i), &sources[i]) < 0) {
            PyMem_Free(sources);
            sources = NULL;
        }
    }
    if (sources == NULL)
        Py_CLEAR(*list);
    return sources;
}

static PyObject *
replaced(const ps_snapshot *snapshot, PyObject *gone, PyObject *added)
{
    PyObject *gone_list = NULL, *added_list = NULL, *made = NULL;
    ps_source *less = sources_of(gone, &gone_list);
    ps_source *more = less == NULL ? NULL : sources_of(added, &added_list);
    if (more != NULL)
        made = ps_snapshot_object(
            ps_snapshot_replace(snapshot, less, (size_t)PyTuple_GET_SIZE(gone_list), more,
                                (size_t)PyTuple_GET_SIZE(added_list)));
    PyMem_Free(less);
    PyMem_Free(more);
    Py_XDECREF(gone_list);
    Py_XDECREF(added_list);
    return made;
}

static PyObject *
snapshot_new(PyTypeObject *Py_UNUSED(type), PyObject *args, PyObject *kwargs)
{
    PyObject *layers = NULL;
    static char *names[] = {"layers", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Snapshot", names, &layers))
        return NULL;
    ps_snapshot *empty = ps_snapshot_empty();
    if (empty == NULL || layers == NULL)
        return ps_snapshot_object(empty);
    PyObject *none = PyTuple_New(0);
    PyObject *made = none == NULL ? NULL : replaced(empty, none, layers);
    Py_XDECREF(none);
    ps_snapshot_release(empty);
    return made;
}

static void
snapshot_dealloc(SnapshotObject *self)
{
    ps_snapshot_release(self->snapshot);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
snapshot_replace(SnapshotObject *self, PyObject *args)
{
    PyObject *gone, *added;
    if (!PyArg_ParseTuple(args, "OO:replace", &gone, &added))
        return NULL;
    return replaced(self->snapshot, gone, added);
}

static PyObject *
snapshot_over(SnapshotObject *self, PyObject *args)
{
    PyObject *parent;
    unsigned long long lsn;
    if (!PyArg_ParseTuple(args, "O!K:over", &SnapshotType, &parent, &lsn))
        return NULL;
    return ps_snapshot_object(
        ps_snapshot_over(self->snapshot, ((SnapshotObject *)parent)->snapshot, lsn));
}

static PyObject *
snapshot_files(SnapshotObject *self, PyObject *Py_UNUSED(ignored))
{
    size_t count = ps_snapshot_file_count(self->snapshot);
    ps_layer **files = PyMem_Malloc((count + 1) * sizeof *files);
    if (files == NULL)
        return PyErr_NoMemory();
    ps_snapshot_files(self->snapshot, files);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *layer = ps_layer_object(files[i]);
        if (layer == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, layer);
    }
    PyMem_Free(files);
    return list;
}

static void
capsule_release(PyObject *capsule)
{
    Py_XDECREF((PyObject *)PyCapsule_GetContext(capsule));
}

static PyObject *
snapshot_meta_source(SnapshotObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *capsule = PyCapsule_New(&self->meta, "pagestore.meta_source", capsule_release);
    if (capsule != NULL)
        PyCapsule_SetContext(capsule, Py_NewRef(self));
    return capsule;
}

static int
key_from(PyObject *object, void *to)
{
    char *bytes;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(object, &bytes, &length) < 0)
        return 0;
    if (length != PS_KEY_LEN) {
        PyErr_SetString(PyExc_ValueError, "a key has 18 bytes");
        return 0;
    }
    memcpy(((ps_key *)to)->b, bytes, PS_KEY_LEN);
    return 1;
}

static PyObject *
snapshot_get(SnapshotObject *self, PyObject *args)
{
    ps_key key;
    unsigned long long lsn;
    if (!PyArg_ParseTuple(args, "O&K", key_from, &key, &lsn))
        return NULL;
    ps_arena arena;
    ps_arena_init(&arena);
    const uint8_t *data = NULL;
    uint32_t length = 0;
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_snapshot_get(self->snapshot, &key, lsn, &arena, &data, &length, &err);
    Py_END_ALLOW_THREADS
    PyObject *result;
    if (rc == PS_OK)
        result = PyBytes_FromStringAndSize((const char *)data, length);
    else
        result = rc == PS_ERR_NOT_FOUND ? Py_NewRef(Py_None) : ps_raise(rc, &err);
    ps_arena_free(&arena);
    return result;
}

typedef struct found {
    ps_key key;
    const uint8_t *value;
    size_t length;
} found;

typedef struct gathering {
    ps_arena arena;
    found *items;
    size_t count;
    size_t capacity;
    size_t limit;
    int keys_only;
    int failed;
} gathering;

static int
gather(void *arg, const ps_key *key, const uint8_t *value, size_t length)
{
    gathering *all = arg;
    if (all->count == all->capacity) {
        size_t capacity = all->capacity == 0 ? 64 : all->capacity * 2;
        found *items = PyMem_RawRealloc(all->items, capacity * sizeof *items);
        if (items == NULL)
            return all->failed = 1;
        all->items = items;
        all->capacity = capacity;
    }
    const uint8_t *copy = NULL;
    if (!all->keys_only && (copy = ps_arena_copy(&all->arena, value, length)) == NULL)
        return all->failed = 1;
    all->items[all->count++] = (found){.key = *key, .value = copy, .length = length};
    return all->count == all->limit;
}

static PyObject *
gathered_list(const gathering *all)
{
    PyObject *list = PyList_New((Py_ssize_t)all->count);
    for (size_t i = 0; list != NULL && i < all->count; i++) {
        const found *item = &all->items[i];
        PyObject *made =
            all->keys_only
                ? PyBytes_FromStringAndSize((const char *)item->key.b, PS_KEY_LEN)
                : Py_BuildValue("(y#y#)", item->key.b, (Py_ssize_t)PS_KEY_LEN, item->value,
                                (Py_ssize_t)item->length);
        if (made == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, made);
    }
    return list;
}

static PyObject *
snapshot_walk(SnapshotObject *self, PyObject *args, PyObject *kwargs, int keys_only)
{
    ps_key low, high;
    unsigned long long lsn;
    Py_ssize_t limit = PY_SSIZE_T_MAX;
    static char *names[] = {"low", "high", "lsn", "limit", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&K|$n", names, key_from, &low, key_from,
                                     &high, &lsn, &limit))
        return NULL;
    if (limit <= 0)
        return PyList_New(0);
    gathering all = {.limit = (size_t)limit, .keys_only = keys_only};
    ps_arena_init(&all.arena);
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_snapshot_scan(self->snapshot, &low, &high, lsn, gather, &all, &err);
    Py_END_ALLOW_THREADS
    PyObject *result;
    if (all.failed)
        result = PyErr_NoMemory();
    else
        result = rc < 0 ? ps_raise(rc, &err) : gathered_list(&all);
    PyMem_RawFree(all.items);
    ps_arena_free(&all.arena);
    return result;
}

static PyObject *
snapshot_scan(SnapshotObject *self, PyObject *args, PyObject *kwargs)
{
    return snapshot_walk(self, args, kwargs, 0);
}

static PyObject *
snapshot_scan_keys(SnapshotObject *self, PyObject *args, PyObject *kwargs)
{
    return snapshot_walk(self, args, kwargs, 1);
}

static PyObject *
snapshot_changed_keys(SnapshotObject *self, PyObject *args)
{
    ps_key low, high;
    unsigned long long after, lsn;
    if (!PyArg_ParseTuple(args, "O&O&KK:changed_keys", key_from, &low, key_from, &high, &after,
                          &lsn))
        return NULL;
    if (after == 0) {
        PyErr_SetString(PyExc_ValueError, "changed_keys: nothing is at or before LSN 0");
        return NULL;
    }
    gathering all = {.limit = SIZE_MAX, .keys_only = 1};
    ps_arena_init(&all.arena);
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_snapshot_changed(self->snapshot, &low, &high, after, lsn, gather, &all, &err);
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;
    if (all.failed)
        PyErr_NoMemory();
    else if (rc < 0)
        ps_raise(rc, &err);
    else
        result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(all.count * PS_KEY_LEN));
    for (size_t i = 0; result != NULL && i < all.count; i++)
        memcpy(PyBytes_AS_STRING(result) + i * PS_KEY_LEN, all.items[i].key.b, PS_KEY_LEN);
    PyMem_RawFree(all.items);
    ps_arena_free(&all.arena);
    return result;
}

/* A row of five little-endian numbers a relation fork: spc, db, rel, fork, blocks. */
enum { RELATION_ROW = 20 };

typedef struct relation_rows {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
    int code; /* why it ended early, or PS_OK */
} relation_rows;

static void
put_le32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static int
add_relation(void *arg, const ps_key *key, const uint8_t *value, size_t length)
{
    relation_rows *rows = arg;
    if (length != 4) {
        rows->code = PS_ERR_CORRUPT;
        return 1;
    }
    if (rows->length + RELATION_ROW > rows->capacity) {
        size_t capacity = rows->capacity == 0 ? 32 << 10 : rows->capacity * 2;
        uint8_t *bytes = PyMem_RawRealloc(rows->bytes, capacity);
        if (bytes == NULL) {
            rows->code = PS_ERR_NOMEM;
            return 1;
        }
        rows->bytes = bytes;
        rows->capacity = capacity;
    }
    uint8_t *row = rows->bytes + rows->length;
    put_le32(row, ps_key_spc(key));
    put_le32(row + 4, ps_key_db(key));
    put_le32(row + 8, ps_key_rel(key));
    put_le32(row + 12, ps_key_fork(key));
    memcpy(row + 16, value, 4);
    rows->length += RELATION_ROW;
    return 0;
}

static PyObject *
snapshot_relations(SnapshotObject *self, PyObject *args)
{
    ps_key low, high;
    unsigned long long lsn;
    if (!PyArg_ParseTuple(args, "O&O&K", key_from, &low, key_from, &high, &lsn))
        return NULL;
    relation_rows rows = {.code = PS_OK};
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_snapshot_scan(self->snapshot, &low, &high, lsn, add_relation, &rows, &err);
    if (rc >= 0 && rows.code != PS_OK)
        rc = ps_fail(&err, rows.code, rows.code == PS_ERR_NOMEM
                                          ? "out of memory for a list of relations"
                                          : "a relation's length has not 4 bytes");
    Py_END_ALLOW_THREADS
    PyObject *result = rc < 0 ? ps_raise(rc, &err)
                              : PyBytes_FromStringAndSize((const char *)rows.bytes,
                                                          (Py_ssize_t)rows.length);
    PyMem_RawFree(rows.bytes);
    return result;
}

static PyObject *
snapshot_last_before(SnapshotObject *self, PyObject *args)
{
    ps_key low, high, key;
    unsigned long long lsn;
    if (!PyArg_ParseTuple(args, "O&O&K", key_from, &low, key_from, &high, &lsn))
        return NULL;
    ps_arena arena;
    ps_arena_init(&arena);
    const uint8_t *data = NULL;
    uint32_t length = 0;
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_snapshot_last(self->snapshot, &low, &high, lsn, &key, &err);
    if (rc == PS_OK)
        rc = ps_snapshot_get(self->snapshot, &key, lsn, &arena, &data, &length, &err);
    Py_END_ALLOW_THREADS
    PyObject *result;
    if (rc == PS_OK)
        result = Py_BuildValue("(y#y#)", key.b, (Py_ssize_t)PS_KEY_LEN, data, (Py_ssize_t)length);
    else
        result = rc == PS_ERR_NOT_FOUND ? Py_NewRef(Py_None) : ps_raise(rc, &err);
    ps_arena_free(&arena);
    return result;
}

static PyObject *
snapshot_chain(SnapshotObject *self, PyObject *args)
{
    ps_key key;
    unsigned long long lsn;
    if (!PyArg_ParseTuple(args, "O&K", key_from, &key, &lsn))
        return NULL;
    ps_arena arena;
    ps_arena_init(&arena);
    ps_chain chain = {.arena = &arena};
    ps_error err = {0};
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = ps_snapshot_collect(self->snapshot, &key, &(uint32_t){0}, 1, lsn, &chain, &err);
    Py_END_ALLOW_THREADS
    PyObject *list = rc < 0 ? ps_raise(rc, &err) : PyList_New(chain.count);
    for (uint32_t i = 0; list != NULL && i < chain.count; i++) {
        const ps_chain_item *item = &chain.items[i];
        PyObject *made =
            Py_BuildValue("(KBBy#)", (unsigned long long)item->lsn, item->kind, item->flags,
                          item->data, (Py_ssize_t)item->length);
        if (made == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, made);
    }
    ps_arena_free(&arena);
    return list;
}

static int
read_pages(const SnapshotObject *self, const Py_buffer *keys, uint64_t lsn, ps_redo_pool *redo,
           uint8_t *out, ps_error *err)
{
    size_t count = (size_t)keys->len / PS_KEY_LEN;
    uint8_t **outs = PyMem_RawMalloc((count + 1) * sizeof *outs);
    if (outs == NULL)
        return ps_fail(err, PS_ERR_NOMEM, "out of memory for a read of %zu blocks", count);
    for (size_t i = 0; i < count; i++)
        outs[i] = out + i * PS_PAGE_SIZE;
    int rc = ps_snapshot_read_pages(self->snapshot, keys->buf, count, lsn, outs, redo, err);
    PyMem_RawFree(outs);
    return rc;
}

static PyObject *
snapshot_read_pages(SnapshotObject *self, PyObject *args)
{
    Py_buffer keys;
    unsigned long long lsn;
    PyObject *pool_object = Py_None, *pages = NULL;
    ps_redo_pool *redo;
    if (!PyArg_ParseTuple(args, "y*K|O", &keys, &lsn, &pool_object))
        return NULL;
    if (keys.len % PS_KEY_LEN != 0 || keys.len / PS_KEY_LEN > UINT32_MAX)
        PyErr_SetString(PyExc_ValueError, "keys have 18 bytes each");
    else if (ps_redo_pool_or_none(pool_object, &redo) == 0)
        pages = PyBytes_FromStringAndSize(NULL, keys.len / PS_KEY_LEN * (Py_ssize_t)PS_PAGE_SIZE);
    if (pages != NULL) {
        ps_error err = {0};
        int rc;
        Py_BEGIN_ALLOW_THREADS
        rc = read_pages(self, &keys, lsn, redo, (uint8_t *)PyBytes_AS_STRING(pages), &err);
        Py_END_ALLOW_THREADS
        if (rc < 0) {
            Py_CLEAR(pages);
            ps_raise(rc, &err);
        }
    }
    PyBuffer_Release(&keys);
    return pages;
}

static PyMethodDef snapshot_methods[] = {
    {"replace", (PyCFunction)snapshot_replace, METH_VARARGS,
     "replace(gone, added) -> a snapshot without some layers and with others"},
    {"over", (PyCFunction)snapshot_over, METH_VARARGS,
     "over(parent, lsn) -> a snapshot with what the parent's shows up to an LSN below"},
    {"files", (PyCFunction)snapshot_files, METH_NOARGS,
     "files() -> [Layer], what was added last first"},
    {"meta_source", (PyCFunction)snapshot_meta_source, METH_NOARGS,
     "A capsule around a ps_meta_source; it keeps the snapshot alive."},
    {"get", (PyCFunction)snapshot_get, METH_VARARGS, "get(key, lsn) -> bytes | None"},
    {"scan", (PyCFunction)(void (*)(void))snapshot_scan, METH_VARARGS | METH_KEYWORDS,
     "scan(low, high, lsn, *, limit) -> [(key, value)] of the keys that exist, ascending"},
    {"scan_keys", (PyCFunction)(void (*)(void))snapshot_scan_keys, METH_VARARGS | METH_KEYWORDS,
     "scan_keys(low, high, lsn, *, limit) -> [key]"},
    {"changed_keys", (PyCFunction)snapshot_changed_keys, METH_VARARGS,
     "changed_keys(low, high, after, lsn) -> 18 bytes for each key that was changed meanwhile"},
    {"relations", (PyCFunction)snapshot_relations, METH_VARARGS,
     "relations(low, high, lsn) -> 20 bytes for each REL_SIZE key: spc, db, rel, fork, blocks"},
    {"last_before", (PyCFunction)snapshot_last_before, METH_VARARGS,
     "last_before(low, high, lsn) -> (key, value) | None: the greatest key that exists"},
    {"chain", (PyCFunction)snapshot_chain, METH_VARARGS,
     "chain(key, lsn) -> [(lsn, kind, flags, payload)], newest first"},
    {"read_pages", (PyCFunction)snapshot_read_pages, METH_VARARGS,
     "read_pages(keys, lsn, redo=None) -> the pages of n * 18 bytes of keys"},
    {NULL, NULL, 0, NULL}};

static PyTypeObject SnapshotType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.Snapshot",
    .tp_doc = "Snapshot(layers=()): in no order. See native/core/store/snapshot.h.",
    .tp_basicsize = sizeof(SnapshotObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = snapshot_new,
    .tp_dealloc = (destructor)snapshot_dealloc,
    .tp_methods = snapshot_methods,
};

const ps_snapshot *
ps_snapshot_of(PyObject *object)
{
    if (!PyObject_TypeCheck(object, &SnapshotType)) {
        PyErr_SetString(PyExc_TypeError, "a pagestore._native.Snapshot is needed");
        return NULL;
    }
    return ((SnapshotObject *)object)->snapshot;
}

int
ps_add_snapshot(PyObject *module)
{
    return PyModule_AddType(module, &SnapshotType);
}
