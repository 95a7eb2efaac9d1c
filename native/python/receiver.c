#include "module.h"

#include "receiver/receiver.h"

typedef struct {
    PyObject_HEAD
    ps_wal_writer *writer;
    Py_ssize_t users; /* calls that are inside the writer without the GIL */
} WriterObject;

typedef struct {
    PyObject_HEAD
    ps_receiver *receiver;
    WriterObject *writer;
    Py_ssize_t users;
} ReceiverObject;

static PyTypeObject WriterType;

static int
writer_init(WriterObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"directory", "start_lsn", "flush_lsn", "prev_record_lsn",
                            "epoch",     NULL};
    const char *directory;
    unsigned long long start, flush, prev = 0, epoch = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sKK|KK:WalWriter", names, &directory, &start,
                                     &flush, &prev, &epoch))
        return -1;
    if (self->writer != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a WalWriter is made once");
        return -1;
    }
    ps_error err = {0};
    ps_wal_writer *writer;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = ps_wal_writer_open(&writer, directory, start, flush, prev, epoch, &err);
    Py_END_ALLOW_THREADS
    if (status != PS_OK) {
        ps_raise(status, &err);
        return -1;
    }
    self->writer = writer;
    return 0;
}

static PyObject *
closed(void)
{
    ps_error err = {.code = PS_ERR_CLOSED, .text = "the writer is closed"};
    return ps_raise(PS_ERR_CLOSED, &err);
}

static PyObject *
writer_append(WriterObject *self, PyObject *args)
{
    unsigned long long lsn;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "Ky*:append", &lsn, &data))
        return NULL;
    if (self->writer == NULL) {
        PyBuffer_Release(&data);
        return closed();
    }
    ps_error err = {0};
    int status;
    self->users++;
    Py_BEGIN_ALLOW_THREADS
    status = ps_wal_writer_append(self->writer, lsn, data.buf, (size_t)data.len, &err);
    Py_END_ALLOW_THREADS
    self->users--;
    PyBuffer_Release(&data);
    if (status != PS_OK)
        return ps_raise(status, &err);
    Py_RETURN_NONE;
}

static PyObject *
writer_close(WriterObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->users > 0) {
        PyErr_SetString(PyExc_RuntimeError, "the writer is in use");
        return NULL;
    }
    ps_wal_writer *writer = self->writer;
    self->writer = NULL;
    Py_BEGIN_ALLOW_THREADS
    ps_wal_writer_close(writer);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static void
writer_dealloc(WriterObject *self)
{
    ps_wal_writer_close(self->writer);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
writer_position(WriterObject *self, void *Py_UNUSED(closure))
{
    if (self->writer == NULL)
        return closed();
    ps_wal_position position = ps_wal_writer_position(self->writer);
    return Py_BuildValue("(KKK)", (unsigned long long)position.flush_lsn,
                         (unsigned long long)position.prev_record_lsn,
                         (unsigned long long)position.write_lsn);
}

static PyMethodDef writer_methods[] = {
    {"append", (PyCFunction)writer_append, METH_VARARGS, "append(lsn, data): whole records"},
    {"close", (PyCFunction)writer_close, METH_NOARGS, "Closes the log."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef writer_getset[] = {
    {"position", (getter)writer_position, NULL, "(flush, prev record, write) LSN", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyTypeObject WriterType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.WalWriter",
    .tp_doc = "One timeline's log, open for writing.",
    .tp_basicsize = sizeof(WriterObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)writer_init,
    .tp_dealloc = (destructor)writer_dealloc,
    .tp_methods = writer_methods,
    .tp_getset = writer_getset,
};

static int
receiver_init(ReceiverObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"writer",      "host", "port",      "user",      "password",
                            "certificate", "name", "system_id", "notify_fd", NULL};
    PyObject *writer;
    unsigned long long system_id;
    ps_receiver_options options;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!$ssssssKi:WalReceiver", names, &WriterType,
                                     &writer, &options.host, &options.port, &options.user,
                                     &options.password, &options.certificate, &options.name,
                                     &system_id, &options.notify_fd))
        return -1;
    if (self->receiver != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a WalReceiver is made once");
        return -1;
    }
    if (((WriterObject *)writer)->writer == NULL) {
        closed();
        return -1;
    }
    options.system_id = system_id;
    ps_error err = {0};
    int status =
        ps_receiver_new(&self->receiver, ((WriterObject *)writer)->writer, &options, &err);
    if (status != PS_OK) {
        ps_raise(status, &err);
        return -1;
    }
    self->writer = (WriterObject *)Py_NewRef(writer);
    return 0;
}

static PyObject *
receiver_run(ReceiverObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->receiver == NULL || self->writer->writer == NULL)
        return closed();
    if (self->users > 0) {
        PyErr_SetString(PyExc_RuntimeError, "the receiver is running");
        return NULL;
    }
    ps_error err = {0};
    int status;
    self->users++;
    self->writer->users++;
    Py_BEGIN_ALLOW_THREADS
    status = ps_receiver_run(self->receiver, &err);
    Py_END_ALLOW_THREADS
    self->users--;
    self->writer->users--;
    if (status != PS_OK)
        return ps_raise(status, &err);
    Py_RETURN_NONE;
}

static PyObject *
receiver_stop(ReceiverObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->receiver != NULL)
        ps_receiver_stop(self->receiver);
    Py_RETURN_NONE;
}

static void
receiver_dealloc(ReceiverObject *self)
{
    ps_receiver_free(self->receiver);
    Py_XDECREF(self->writer);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
receiver_streaming(ReceiverObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->receiver != NULL && ps_receiver_streaming(self->receiver));
}

static PyMethodDef receiver_methods[] = {
    {"run", (PyCFunction)receiver_run, METH_NOARGS, "One connection, until it ends."},
    {"stop", (PyCFunction)receiver_stop, METH_NOARGS, "Makes run() return soon."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef receiver_getset[] = {
    {"streaming", (getter)receiver_streaming, NULL, "Whether WAL flows.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyTypeObject ReceiverType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.WalReceiver",
    .tp_doc = "Pulls from a compute's walsender into a writer.",
    .tp_basicsize = sizeof(ReceiverObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)receiver_init,
    .tp_dealloc = (destructor)receiver_dealloc,
    .tp_methods = receiver_methods,
    .tp_getset = receiver_getset,
};

int
ps_add_receiver(PyObject *module)
{
    if (PyModule_AddType(module, &WriterType) < 0 || PyModule_AddType(module, &ReceiverType) < 0)
        return -1;
    return 0;
}
