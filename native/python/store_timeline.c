/* pagestore._native.TimelineView: what of a timeline C reads without Python. */
#include "store.h"

typedef struct {
    PyObject_HEAD
    ps_timeline *timeline;
} ViewObject;

static PyObject *
view_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    unsigned long long last, prev, earliest, horizon;
    static char *names[] = {"last_record_lsn", "prev_record_lsn", "earliest_lsn", "horizon", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KKKK:TimelineView", names, &last, &prev,
                                     &earliest, &horizon))
        return NULL;
    ViewObject *self = (ViewObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->timeline = ps_timeline_make(&(ps_timeline_state){.last_record_lsn = last,
                                                           .prev_record_lsn = prev,
                                                           .earliest_lsn = earliest,
                                                           .horizon = horizon});
    if (self->timeline == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void
view_dealloc(ViewObject *self)
{
    ps_timeline_release(self->timeline);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *
view_move(ViewObject *self, PyObject *args)
{
    unsigned long long last, prev;
    if (!PyArg_ParseTuple(args, "KK:move", &last, &prev))
        return NULL;
    ps_timeline_move(self->timeline, last, prev);
    Py_RETURN_NONE;
}

static PyObject *
view_keep(ViewObject *self, PyObject *args)
{
    unsigned long long horizon;
    if (!PyArg_ParseTuple(args, "K:keep", &horizon))
        return NULL;
    ps_timeline_keep(self->timeline, horizon);
    Py_RETURN_NONE;
}

static PyObject *
view_publish(ViewObject *self, PyObject *object)
{
    const ps_snapshot *snapshot = object == Py_None ? NULL : ps_snapshot_of(object);
    if (snapshot == NULL && object != Py_None)
        return NULL;
    ps_timeline_publish(self->timeline, snapshot);
    Py_RETURN_NONE;
}

static PyObject *
view_read(ViewObject *self, PyObject *Py_UNUSED(ignored))
{
    ps_snapshot *snapshot;
    ps_timeline_state state = ps_timeline_read(self->timeline, &snapshot);
    PyObject *object = snapshot == NULL ? Py_NewRef(Py_None) : ps_snapshot_object(snapshot);
    if (object == NULL)
        return NULL;
    return Py_BuildValue("(KKKKN)", (unsigned long long)state.last_record_lsn,
                         (unsigned long long)state.prev_record_lsn,
                         (unsigned long long)state.earliest_lsn,
                         (unsigned long long)state.horizon, object);
}

static PyMethodDef view_methods[] = {
    {"move", (PyCFunction)view_move, METH_VARARGS,
     "move(last_record_lsn, prev_record_lsn): up to there it can be read."},
    {"keep", (PyCFunction)view_keep, METH_VARARGS, "keep(horizon): from there on all is kept."},
    {"publish", (PyCFunction)view_publish, METH_O, "publish(snapshot | None)"},
    {"read", (PyCFunction)view_read, METH_NOARGS,
     "read() -> (last_record_lsn, prev_record_lsn, earliest_lsn, horizon, snapshot | None)"},
    {NULL, NULL, 0, NULL}};

static PyTypeObject ViewType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pagestore._native.TimelineView",
    .tp_doc = "Position, bounds and snapshot of a timeline. See native/core/store/timeline.h.",
    .tp_basicsize = sizeof(ViewObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = view_new,
    .tp_dealloc = (destructor)view_dealloc,
    .tp_methods = view_methods,
};

int
ps_add_timeline(PyObject *module)
{
    return PyModule_AddType(module, &ViewType);
}
