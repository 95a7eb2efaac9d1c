/* What a superuser's own library may try from inside his backend, whatever SQL would let him. */
#include "postgres.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(intrude);

/* Each attempt that succeeds adds its bit: 0 when all are refused. */
Datum
intrude(PG_FUNCTION_ARGS)
{
    pid_t  victim = PG_GETARG_INT32(0);
    int    done = 0;

    done |= (setuid(0) == 0) << 0;
    done |= (setgid(0) == 0) << 1;
    done |= (chroot("/") == 0) << 2;
    done |= (mount("none", "/tmp", "tmpfs", 0, "") == 0) << 3;
    done |= (kill(victim, SIGKILL) == 0) << 4;
    done |= (ptrace(PTRACE_ATTACH, victim, NULL, NULL) == 0) << 5;
    done |= (syscall(SYS_pidfd_open, victim, 0) >= 0) << 6;
    done |= (kill(1, SIGKILL) == 0 && getppid() == 0) << 7;
    done |= (open("/dev/mem", O_RDONLY) >= 0) << 8;
    done |= (sethostname("mine", 4) == 0) << 9;
    done |= (syscall(SYS_init_module, "", 0, "") == 0) << 10;
    done |= (open("/proc/sys/kernel/core_pattern", O_WRONLY) >= 0) << 11;
    PG_RETURN_INT32(done);
}
