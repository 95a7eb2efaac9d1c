/*
 * pagestore._native.PageReaders: GetPages on an event loop, with threads for what must wait.
 *
 * A read's ticket is the address of its job, which the loop knows until it takes it.
 */
#include "redo.h"
#include "store/readers.h"
#include "store.h"

typedef struct {
    PyObject_HEAD
    ps_readers *readers;
} ReadersObject;

/* A job and what keeps alive whatever it points to; made and freed under the GIL. */
typedef struct {
    ps_pages_job job; /* the first: the core knows only this */
    ps_snapshot *snapshot;
    PyObject *redo;
    PyObject *response;
} Read;

static int
readers_init(ReadersObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"files", "helpers", NULL};
    unsigned files, helpers;
    ps_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "II:PageReaders", names, &files, &helpers))
        return -1;
    if (self->readers != NULL || files == 0 || helpers == 0 || files > 64 || helpers > 64) {
        PyErr_SetString(PyExc_ValueError, "PageReaders are made once, with 1 to 64 threads each");
        return -1;
    }
    self->readers = ps_readers_open(files, helpers, &err);
    if (self->readers == NULL)
        ps_raise(err.code, &err);
    return self->readers == NULL ? -1 : 0;
}

static void
read_free(Read *read)
{
    ps_snapshot_release(read->snapshot);
    Py_XDECREF(read->redo);
    Py_XDECREF(read->response);
    PyMem_Free(read);
}

static PyObject *
status_response(uint64_t request_id, const ps_pages_status *status)
{
    uint8_t out[PS_PAGES_STATUS_BYTES];
    size_t length = ps_pages_status_encode(request_id, status, out);
    return PyBytes_FromStringAndSize((const char *)out, (Py_ssize_t)length);
}

/* Of a read that is done, which is freed. */
static PyObject *
response_of(Read *read)
{
    PyObject *response = read->job.status.code == 0
                             ? Py_NewRef(read->response)
                             : status_response(read->job.request.request_id, &read->job.status);
    read_free(read);
    return response;
}

/* Whether the request can be served; if not, its answer is in the read's status. */
static int
understand(Read *read, const Py_buffer *bytes)
{
    ps_pages_job *job = &read->job;
    ps_error err = {0};
    if (ps_pages_request_parse(bytes->buf, (size_t)bytes->len, &job->request, &err) < 0) {
        job->status.code = 3;
        job->status.reason = "MALFORMED_REQUEST";
        memcpy(job->status.message, err.text, sizeof job->status.message);
        return 0;
    }
    return ps_pages_request_check(&job->request, &job->status) == 0;
}

static Read *
read_make(PyObject *snapshot, const Py_buffer *bytes, uint64_t lsn, PyObject *pool)
{
    ps_redo_pool *redo;
    const ps_snapshot *view = ps_snapshot_of(snapshot);
    if (view == NULL || ps_redo_pool_or_none(pool, &redo) < 0)
        return NULL;
    Read *read = PyMem_Malloc(sizeof *read);
    if (read == NULL)
        return (Read *)PyErr_NoMemory();
    read->job.snapshot = read->snapshot = ps_snapshot_retain(view);
    read->job.lsn = lsn;
    read->job.redo = redo;
    read->job.status.code = 0;
    read->redo = Py_NewRef(pool);
    read->response = NULL;
    if (!understand(read, bytes))
        return read;
    read->response =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)ps_pages_response_bytes(&read->job.request));
    if (read->response == NULL) {
        read_free(read);
        return NULL;
    }
    read->job.out = (uint8_t *)PyBytes_AS_STRING(read->response);
    return read;
}

static PyObject *
readers_serve_pages(ReadersObject *self, PyObject *args)
{
    PyObject *snapshot, *pool;
    Py_buffer bytes;
    unsigned long long lsn;
    if (!PyArg_ParseTuple(args, "Oy*KO:serve_pages", &snapshot, &bytes, &lsn, &pool))
        return NULL;
    Read *read = read_make(snapshot, &bytes, lsn, pool);
    PyBuffer_Release(&bytes);
    if (read == NULL || read->job.status.code != 0)
        return read == NULL ? NULL : response_of(read);
    int done;
    Py_BEGIN_ALLOW_THREADS
    ps_pages_begin(&read->job);
    done = read->job.step == PS_PAGES_DONE;
    Py_END_ALLOW_THREADS
    if (done)
        return response_of(read);
    PyObject *ticket = PyLong_FromVoidPtr(read);
    ps_readers_submit(self->readers, &read->job);
    return ticket;
}

static PyObject *
readers_take(ReadersObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    ps_pages_job *next = list == NULL ? NULL : ps_readers_take(self->readers);
    while (next != NULL) {
        Read *read = (Read *)next;
        next = next->next;
        PyObject *ticket = PyLong_FromVoidPtr(read);
        PyObject *response = response_of(read);
        PyObject *pair = ticket != NULL && response != NULL
                             ? PyTuple_Pack(2, ticket, response)
                             : NULL;
        if (pair == NULL || PyList_Append(list, pair) < 0)
            PyErr_WriteUnraisable((PyObject *)self); /* the others are still to be given out */
        Py_XDECREF(pair);
        Py_XDECREF(response);
        Py_XDECREF(ticket);
    }
    return list;
}

static PyObject *
readers_cancel(ReadersObject *self, PyObject *ticket)
{
    void *read = PyLong_AsVoidPtr(ticket);
    if (read == NULL && PyErr_Occurred())
        return NULL;
    ps_readers_cancel(self->readers, read);
    Py_RETURN_NONE;
}

static PyObject *
readers_close(ReadersObject *self, PyObject *Py_UNUSED(ignored))
{
    Py_BEGIN_ALLOW_THREADS
    ps_readers_close(self->readers);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *
readers_fileno(ReadersObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(ps_readers_fd(self->readers));
}

static void
readers_dealloc(ReadersObject *self)
{
    if (self->readers != NULL) {
        Py_BEGIN_ALLOW_THREADS
        ps_readers_close(self->readers);
        Py_END_ALLOW_THREADS
        for (ps_pages_job *next = ps_readers_take(self->readers); next != NULL;) {
            Read *read = (Read *)next;
            next = next->next;
            read_free(read);
        }
        ps_readers_free(self->readers);
    }
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef readers_methods[] = {
    {"fileno", (PyCFunction)readers_fileno, METH_NOARGS,
     "The descriptor that is readable when there is something to take."},
    {"serve_pages", (PyCFunction)readers_serve_pages, METH_VARARGS,
     "serve_pages(snapshot, request, lsn, redo): GetPagesRequest to GetPagesResponse, or a "
     "ticket."},
    {"take", (PyCFunction)readers_take, METH_NOARGS, "take() -> [(ticket, response)]"},
    {"cancel", (PyCFunction)readers_cancel, METH_O,
     "cancel(ticket): nobody waits for it; it is to be taken all the same."},
    {"close", (PyCFunction)readers_close, METH_NOARGS,
     "Waits for what is under way; no more may be served then."},
    {NULL, NULL, 0, NULL}};

static PyTypeObject ReadersType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.PageReaders",
    .tp_doc = "PageReaders(files, helpers): see native/core/store/readers.h.",
    .tp_basicsize = sizeof(ReadersObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)readers_init,
    .tp_dealloc = (destructor)readers_dealloc,
    .tp_methods = readers_methods,
};

int
ps_add_page_readers(PyObject *module)
{
    return PyModule_AddType(module, &ReadersType);
}
