/* What a RUN tries against the kernel, and what the kernel says: a line for each, "wall NAME ANSWER". */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, long result) {
    const char *text = result >= 0 ? "done" : strerrorname_np(errno);
    printf("wall %s %s\n", name, text ? text : "?");
    fflush(stdout);
}

static int keys(void) {
    char text[64] = "";
    long key = syscall(SYS_keyctl, 10, -3, "user", "kpy-canary", 0); /* KEYCTL_SEARCH in the session keyring */
    say("key", key);
    if (key >= 0 && syscall(SYS_keyctl, 11, key, text, sizeof text - 1) >= 0) /* KEYCTL_READ */
        printf("wall read %s\n", text);
    return 0;
}

static long with_clone(long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid(pid, 0, 0);
    return pid;
}

#define TRY(name, ...) say(name, syscall(__VA_ARGS__))

static int calls(void) {
    char buffer[256] = {0};
    TRY("keyctl", SYS_keyctl, 0, -3, 0);
    TRY("add_key", SYS_add_key, "user", "kpy-mine", "x", 1, -3);
    TRY("request_key", SYS_request_key, "user", "kpy-canary", 0, 0);
    TRY("io_uring_setup", SYS_io_uring_setup, 1, buffer);
    TRY("io_uring_enter", SYS_io_uring_enter, -1, 0, 0, 0, 0, 0);
    TRY("bpf", SYS_bpf, 5, buffer, sizeof buffer);
    TRY("perf_event_open", SYS_perf_event_open, buffer, 0, -1, -1, 0);
    TRY("userfaultfd", SYS_userfaultfd, 1);
    TRY("unshare-user", SYS_unshare, CLONE_NEWUSER);
    TRY("unshare-mount", SYS_unshare, CLONE_NEWNS);
    say("clone-user", with_clone(CLONE_NEWUSER));
    say("clone-net", with_clone(CLONE_NEWNET));
    say("clone", with_clone(0));
    TRY("clone3", SYS_clone3, buffer, 64);
    TRY("setns", SYS_setns, 0, 0);
    TRY("open_by_handle_at", SYS_open_by_handle_at, 0, buffer, 0);
    TRY("mount", SYS_mount, "x", "/", "tmpfs", 0, 0);
    TRY("fsopen", SYS_fsopen, "tmpfs", 0);
    TRY("open_tree", SYS_open_tree, -100, "/", 1);
    TRY("pidfd_getfd", SYS_pidfd_getfd, -1, 0, 0);
    TRY("kexec_load", SYS_kexec_load, 0, 0, 0, 0);
    TRY("finit_module", SYS_finit_module, 0, "", 0);
    TRY("syslog", SYS_syslog, 10, 0, 0);
    TRY("mbind", SYS_mbind, 0, 0, 0, 0, 0, 0);
    TRY("sethostname", SYS_sethostname, "x", 1);
    TRY("file_setattr", 469, -1, "", buffer, 24, 0);
    TRY("call-600", 600, 0);
    TRY("call-4000", 4000, 0);
    TRY("negative", -5, 0);
    TRY("personality-ask", SYS_personality, 0xffffffff);
    TRY("personality-norandom", SYS_personality, 0x0040000);
    TRY("socket-unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    TRY("socket-inet", SYS_socket, AF_INET, SOCK_STREAM, 0);
    TRY("socket-netlink", SYS_socket, 16, SOCK_RAW, 0);
    TRY("socket-alg", SYS_socket, 38, SOCK_SEQPACKET, 0);
    TRY("socket-vsock", SYS_socket, 40, SOCK_STREAM, 0);
    TRY("socket-46", SYS_socket, 46, SOCK_STREAM, 0);
    TRY("ptrace", SYS_ptrace, 0, 0, 0, 0);
    TRY("chroot", SYS_chroot, "/");
    return 0;
}

#ifdef __x86_64__
static long old(long number, long first, long second, long third) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory", "r8", "r9", "r10", "r11");
    result = (int)result;
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

static void none(int signal) {
    printf("wall i386 none\n");
    fflush(stdout);
    _exit(0);
}

static int others(void) {
    TRY("x32-getpid", 0x40000000 + SYS_getpid);
    TRY("x32-keyctl", 0x40000000 + SYS_keyctl, 0, -3, 0);
    signal(SIGSEGV, none); /* a kernel without it */
    say("i386-getpid", old(20, 0, 0, 0));
    say("i386-keyctl", old(288, 0, -3, 0));
    say("i386-io_uring_setup", old(425, 1, 0, 0));
    say("i386-unshare", old(310, CLONE_NEWUSER, 0, 0));
    say("i386-bpf", old(357, 5, 0, 0));
    say("i386-userfaultfd", old(374, 1, 0, 0));
    say("i386-clone3", old(435, 0, 64, 0));
    say("i386-mount", old(21, 0, 0, 0));
    say("i386-socket-alg", old(359, 38, 5, 0));
    say("i386-socket-unix", old(359, 1, 1, 0));
    /* Its arguments are in memory that 32 bits reach. */
    int *words = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    words[0] = 38, words[1] = SOCK_SEQPACKET, words[2] = 0;
    say("i386-socketcall-alg", old(102, 1, (long)words, 0));
    words[0] = AF_INET, words[1] = SOCK_STREAM;
    say("i386-socketcall-inet", old(102, 1, (long)words, 0));
    say("i386-unknown", old(3000, 0, 0, 0));
    return 0;
}
#else
static int others(void) { return 0; }
#endif

/* An abstract socket: `listen NAME PROGRAM ...` starts the program with somebody listening; `ask NAME` connects. */
static int meet(int count, char **words) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(words[2]);
    int place = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path + 1, words[2]);
    if (!strcmp(words[1], "ask")) {
        say(words[2], connect(place, (void *)&address, size));
        return 0;
    }
    if (bind(place, (void *)&address, size) || listen(place, 8))
        return perror("listen"), 1;
    pid_t pid = fork();
    if (pid == 0)
        return execv(words[3], words + 3), 1;
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    if (!strcmp(what, "keys"))
        return keys();
    if (!strcmp(what, "who"))
        return printf("wall who %d:%d\n", getuid(), geteuid()), 0;
    if (!strcmp(what, "calls"))
        return calls();
    if (!strcmp(what, "others"))
        return others();
    if (count > 2 && (!strcmp(what, "ask") || !strcmp(what, "listen")))
        return meet(count, words);
    return 2;
}
