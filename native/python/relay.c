#include "module.h"

#include <stdbool.h>

#include "relay/relay.h"

enum { TAKEN_AT_ONCE = 256 };

typedef struct {
    PyObject_HEAD
    ps_tls *tls;
    PyObject *hash;
} TlsObject;

typedef struct {
    PyObject_HEAD
    ps_relay *relay;
} RelayObject;

static PyTypeObject TlsType;

/* --- certificates */

static int
tls_init(TlsObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"certificate", "key", NULL};
    const char *certificate, *key;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ss:TlsContext", names, &certificate, &key))
        return -1;
    if (self->tls != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a TlsContext is made once");
        return -1;
    }
    uint8_t hash[PS_CERTIFICATE_HASH];
    size_t length = 0;
    ps_error err = {0};
    int status = ps_tls_new(&self->tls, certificate, key, hash, &length, &err);
    if (status != PS_OK) {
        ps_raise(status, &err);
        return -1;
    }
    self->hash = PyBytes_FromStringAndSize((const char *)hash, (Py_ssize_t)length);
    return self->hash != NULL ? 0 : -1;
}

static void
tls_dealloc(TlsObject *self)
{
    ps_tls_free(self->tls);
    Py_XDECREF(self->hash);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
tls_hash(TlsObject *self, void *Py_UNUSED(closure))
{
    return Py_XNewRef(self->hash);
}

static PyGetSetDef tls_getters[] = {
    {"certificate_hash", (getter)tls_hash, NULL, "tls-server-end-point of RFC 5929.", NULL},
    {0},
};

static PyTypeObject TlsType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.TlsContext",
    .tp_basicsize = sizeof(TlsObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)tls_init,
    .tp_dealloc = (destructor)tls_dealloc,
    .tp_getset = tls_getters,
};

/* --- the relay */

static int
relay_init(RelayObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"threads", "notify_fd", "max_connections", "max_logins", "full", "gone",
                            NULL};
    ps_relay_options options = {0};
    Py_buffer full, gone;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iiIIy*y*:Relay", names, &options.threads,
                                     &options.notify_fd, &options.max_connections,
                                     &options.max_logins, &full, &gone))
        return -1;
    if (self->relay != NULL) {
        PyBuffer_Release(&full);
        PyBuffer_Release(&gone);
        PyErr_SetString(PyExc_RuntimeError, "a Relay is made once");
        return -1;
    }
    options.full = full.buf;
    options.full_length = (size_t)full.len;
    options.gone = gone.buf;
    options.gone_length = (size_t)gone.len;
    ps_error err = {0};
    int status = ps_relay_new(&self->relay, &options, &err);
    PyBuffer_Release(&full);
    PyBuffer_Release(&gone);
    if (status != PS_OK)
        ps_raise(status, &err);
    return status == PS_OK ? 0 : -1;
}

static PyObject *
relay_shut_down(RelayObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_relay *relay = self->relay;
    self->relay = NULL;
    if (relay != NULL) {
        Py_BEGIN_ALLOW_THREADS
        ps_relay_free(relay);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static void
relay_dealloc(RelayObject *self)
{
    Py_XDECREF(relay_shut_down(self, NULL));
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static bool
is_open(RelayObject *self)
{
    ps_error err = {.code = PS_ERR_CLOSED, .text = "the relay is shut down"};
    if (self->relay == NULL)
        ps_raise(PS_ERR_CLOSED, &err);
    return self->relay != NULL;
}

static PyObject *
outcome(int status, const ps_error *err)
{
    if (status != PS_OK)
        return ps_raise(status, err);
    Py_RETURN_NONE;
}

static PyObject *
relay_listen(RelayObject *self, PyObject *args)
{
    int fd;
    ps_error err = {0};
    if (!PyArg_ParseTuple(args, "i:listen", &fd) || !is_open(self))
        return NULL;
    return outcome(ps_relay_listen(self->relay, fd, &err), &err);
}

static PyObject *
relay_adopt(RelayObject *self, PyObject *args)
{
    int fd;
    unsigned long long beside;
    if (!PyArg_ParseTuple(args, "iK:adopt", &fd, &beside) || !is_open(self))
        return NULL;
    return PyLong_FromUnsignedLongLong(ps_relay_adopt(self->relay, fd, beside));
}

static PyObject *
relay_take(RelayObject *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_open(self))
        return NULL;
    ps_relay_event events[TAKEN_AT_ONCE];
    size_t count = ps_relay_take(self->relay, events, TAKEN_AT_ONCE);
    PyObject *taken = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; i < count; i++) {
        PyObject *item = taken == NULL ? NULL
                                       : Py_BuildValue("(Kiy#)", events[i].id, (int)events[i].kind,
                                                       events[i].data != NULL
                                                           ? (const char *)events[i].data
                                                           : "",
                                                       (Py_ssize_t)events[i].length);
        free(events[i].data);
        if (item == NULL)
            Py_CLEAR(taken);
        else
            PyList_SET_ITEM(taken, (Py_ssize_t)i, item);
    }
    return taken;
}

static PyObject *
relay_read(RelayObject *self, PyObject *args)
{
    unsigned long long id;
    ps_error err = {0};
    if (!PyArg_ParseTuple(args, "K:read", &id) || !is_open(self))
        return NULL;
    return outcome(ps_relay_read(self->relay, id, &err), &err);
}

typedef int saying(ps_relay *, uint64_t, const void *, size_t, ps_error *);

static PyObject *
say(RelayObject *self, PyObject *args, saying *order, const char *format)
{
    unsigned long long id;
    Py_buffer data;
    ps_error err = {0};
    if (!PyArg_ParseTuple(args, format, &id, &data))
        return NULL;
    PyObject *done = NULL;
    if (is_open(self))
        done = outcome(order(self->relay, id, data.buf, (size_t)data.len, &err), &err);
    PyBuffer_Release(&data);
    return done;
}

static PyObject *
relay_send(RelayObject *self, PyObject *args)
{
    return say(self, args, ps_relay_send, "Ky*:send");
}

static PyObject *
relay_ask(RelayObject *self, PyObject *args)
{
    return say(self, args, ps_relay_ask, "Ky*:ask");
}

static PyObject *
relay_dismiss(RelayObject *self, PyObject *args)
{
    return say(self, args, ps_relay_dismiss, "Ky*:dismiss");
}

static PyObject *
relay_begin_tls(RelayObject *self, PyObject *args)
{
    unsigned long long id;
    TlsObject *tls;
    Py_buffer early;
    ps_error err = {0};
    if (!PyArg_ParseTuple(args, "KO!y*:begin_tls", &id, &TlsType, &tls, &early))
        return NULL;
    PyObject *done = NULL;
    if (is_open(self))
        done = outcome(ps_relay_begin_tls(self->relay, id, tls->tls, early.buf,
                                          (size_t)early.len, &err),
                       &err);
    PyBuffer_Release(&early);
    return done;
}

static PyObject *
relay_join(RelayObject *self, PyObject *args)
{
    unsigned long long client, server;
    unsigned meter;
    Py_buffer rest;
    ps_error err = {0};
    if (!PyArg_ParseTuple(args, "KKIy*:join", &client, &server, &meter, &rest))
        return NULL;
    PyObject *done = NULL;
    if (is_open(self))
        done = outcome(ps_relay_join(self->relay, client, server, meter, rest.buf,
                                     (size_t)rest.len, &err),
                       &err);
    PyBuffer_Release(&rest);
    return done;
}

static PyObject *
relay_queries(RelayObject *self, PyObject *args)
{
    unsigned meter;
    if (!PyArg_ParseTuple(args, "I:queries", &meter) || !is_open(self))
        return NULL;
    return PyLong_FromUnsignedLongLong(ps_relay_queries(self->relay, meter));
}

static PyObject *
relay_hold(RelayObject *self, PyObject *args)
{
    unsigned long long id;
    int now = 0;
    ps_error err = {0};
    if (!PyArg_ParseTuple(args, "K|p:hold", &id, &now) || !is_open(self))
        return NULL;
    return outcome(ps_relay_hold(self->relay, id, now, &err), &err);
}

static PyObject *
relay_release(RelayObject *self, PyObject *args)
{
    unsigned long long id;
    ps_error err = {0};
    if (!PyArg_ParseTuple(args, "K:release", &id) || !is_open(self))
        return NULL;
    return outcome(ps_relay_release(self->relay, id, &err), &err);
}

static PyObject *
relay_watch(RelayObject *self, PyObject *args)
{
    unsigned long long id;
    ps_error err = {0};
    if (!PyArg_ParseTuple(args, "K:watch", &id) || !is_open(self))
        return NULL;
    return outcome(ps_relay_watch(self->relay, id, &err), &err);
}

static PyObject *
relay_close(RelayObject *self, PyObject *args)
{
    unsigned long long id;
    ps_error err = {0};
    if (!PyArg_ParseTuple(args, "K:close", &id) || !is_open(self))
        return NULL;
    return outcome(ps_relay_close(self->relay, id, &err), &err);
}

static PyObject *
relay_sessions(RelayObject *self, PyObject *args)
{
    unsigned limit;
    unsigned long long quiet_ms = UINT64_MAX;
    if (!PyArg_ParseTuple(args, "I|K:sessions", &limit, &quiet_ms) || !is_open(self))
        return NULL;
    ps_relay_session *found = PyMem_RawCalloc(limit + 1, sizeof *found);
    if (found == NULL)
        return PyErr_NoMemory();
    size_t count;
    ps_relay *relay = self->relay;
    Py_BEGIN_ALLOW_THREADS
    count = ps_relay_sessions(relay, quiet_ms, found, limit);
    Py_END_ALLOW_THREADS
    PyObject *sessions = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; sessions != NULL && i < count; i++) {
        PyObject *item = Py_BuildValue("(KKKOO)", found[i].client, found[i].server,
                                       found[i].idle_ms, found[i].at_rest ? Py_True : Py_False,
                                       found[i].spoken ? Py_True : Py_False);
        if (item == NULL)
            Py_CLEAR(sessions);
        else
            PyList_SET_ITEM(sessions, (Py_ssize_t)i, item);
    }
    PyMem_RawFree(found);
    return sessions;
}

static PyMethodDef relay_methods[] = {
    {"listen", (PyCFunction)relay_listen, METH_VARARGS, NULL},
    {"adopt", (PyCFunction)relay_adopt, METH_VARARGS, NULL},
    {"take", (PyCFunction)relay_take, METH_NOARGS, NULL},
    {"read", (PyCFunction)relay_read, METH_VARARGS, NULL},
    {"send", (PyCFunction)relay_send, METH_VARARGS, NULL},
    {"ask", (PyCFunction)relay_ask, METH_VARARGS, NULL},
    {"begin_tls", (PyCFunction)relay_begin_tls, METH_VARARGS, NULL},
    {"join", (PyCFunction)relay_join, METH_VARARGS, NULL},
    {"queries", (PyCFunction)relay_queries, METH_VARARGS, NULL},
    {"hold", (PyCFunction)relay_hold, METH_VARARGS, NULL},
    {"release", (PyCFunction)relay_release, METH_VARARGS, NULL},
    {"watch", (PyCFunction)relay_watch, METH_VARARGS, NULL},
    {"close", (PyCFunction)relay_close, METH_VARARGS, NULL},
    {"dismiss", (PyCFunction)relay_dismiss, METH_VARARGS, NULL},
    {"sessions", (PyCFunction)relay_sessions, METH_VARARGS, NULL},
    {"shut_down", (PyCFunction)relay_shut_down, METH_NOARGS, NULL},
    {0},
};

static PyTypeObject RelayType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.Relay",
    .tp_basicsize = sizeof(RelayObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)relay_init,
    .tp_dealloc = (destructor)relay_dealloc,
    .tp_methods = relay_methods,
};

int
ps_add_relay(PyObject *module)
{
    if (PyModule_AddType(module, &TlsType) < 0 ||
        PyModule_AddIntConstant(module, "TAKEN_AT_ONCE", TAKEN_AT_ONCE) < 0 ||
        PyModule_AddIntConstant(module, "RELAY_METERS", PS_RELAY_METERS) < 0)
        return -1;
    return PyModule_AddType(module, &RelayType);
}
