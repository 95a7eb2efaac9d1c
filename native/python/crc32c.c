#include "module.h"

#include "crc32c.h"

static PyObject *
crc32c(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer data;
    unsigned int crc = 0;
    if (!PyArg_ParseTuple(args, "y*|I:crc32c", &data, &crc))
        return NULL;
    uint32_t result;
    if (data.len < 4096) {
        result = ps_crc32c(crc, data.buf, (size_t)data.len);
    } else {
        Py_BEGIN_ALLOW_THREADS
        result = ps_crc32c(crc, data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLong(result);
}

static PyMethodDef functions[] = {
    {"crc32c", crc32c, METH_VARARGS, "crc32c(data, crc=0): CRC-32C; of chunks, chained."},
    {NULL, NULL, 0, NULL}};

int
ps_add_crc32c(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
