#include "module.h"

int
ps_add_receiver(PyObject *module)
{
    (void)module;
    return 0;
}
