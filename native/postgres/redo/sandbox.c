/*
 * WAL comes from users' databases: a flaw in some redo routine must not become a way into
 * the page server's machine. The filter is a plain list of system calls; anything else kills
 * the process at once (SIGSYS), which the pool treats as any other death.
 */
#include "postgres.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sandbox.h"

#if defined(__x86_64__)
#define AUDIT_ARCH_HERE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define AUDIT_ARCH_HERE AUDIT_ARCH_AARCH64
#else
#error "pagestore_redo knows the system calls of x86-64 and aarch64 only"
#endif

/* pread64: how Postgres 18 reads a block, of a file in memory (setup_18.c). */
static const int allowed[] = {SYS_read,       SYS_pread64, SYS_write,
                              SYS_exit_group, SYS_brk,     SYS_rt_sigreturn};

void
redo_sandbox_enter(void)
{
    struct sock_filter filter[4 + lengthof(allowed) + 2];
    int n = 0;
    filter[n++] = (struct sock_filter)
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    filter[n++] = (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_HERE, 1, 0);
    filter[n++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[n++] = (struct sock_filter)
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < lengthof(allowed); i++)
        filter[n++] = (struct sock_filter)
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32) allowed[i],
                     (uint8) (lengthof(allowed) - i), 0);
    filter[n++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[n++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);

    /* mmap is not on the list: all memory comes from brk, and is kept. */
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 8 << 20);
    mallopt(M_TOP_PAD, 1 << 20);

    struct rlimit no_core = {0, 0};
    struct sock_fprog program = {.len = (unsigned short) n, .filter = filter};
    if (setrlimit(RLIMIT_CORE, &no_core) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        ereport(FATAL, (errmsg("pagestore_redo: could not enter the sandbox: %m")));
}
