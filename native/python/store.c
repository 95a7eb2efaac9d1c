#include "module.h"

int
ps_add_store(PyObject *module)
{
    (void)module;
    return 0;
}
