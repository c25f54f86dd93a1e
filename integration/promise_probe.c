/* What a RUN may try, one kind of attack a word: `probe ROW [WORD...]` prints `PROMISE ROW yes|no WHAT` for all that it tried.
   The rows are those of SECURITY.md; promise_driver.py says with which words. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *row;
static int could;

static int tried(const char *what, long result) {
    if (result < 0) {
        printf("tried %s: %s: %s\n", row, what, strerrorname_np(errno));
        return 0;
    }
    printf("tried %s: %s: DONE\n", row, what);
    could = 1;
    return 1;
}
#define TRY(what) tried(#what, (errno = 0, (long)(what)))

/* A call that the kernel looked at, and did not refuse to anybody. */
static void reached(const char *what, long result) {
    int refused = errno == EPERM || errno == EACCES || errno == ENOSYS;
    tried(what, result < 0 && refused ? -1 : 0);
}
#define REACH(what) reached(#what, (errno = 0, (long)(what)))

/* Each process of kpy's that is not of a RUN. */
static int builders(int *pids, int most) {
    int count = 0;
    DIR *directory = opendir("/proc");
    char path[300], line[4096];
    if (!directory) return 0;
    for (struct dirent *entry; (entry = readdir(directory)) && count < most;) {
        int pid = atoi(entry->d_name);
        if (!pid || pid == getpid()) continue;
        snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
        int file = open(path, O_RDONLY);
        ssize_t size = file < 0 ? 0 : read(file, line, sizeof line);
        if (file >= 0) close(file);
        if (size <= 0 || memmem(line, size, "probe", 5) || memmem(line, size, "sandbox", 7) || memmem(line, size, "job.json", 8)) continue;
        if (memmem(line, size, "kpy", 3)) pids[count++] = pid;
    }
    closedir(directory);
    printf("tried %s: %d processes of kpy are seen\n", row, count);
    return count;
}

/* Root that may chroot can leave any directory that it is locked into (chroot(2)). */
static void leave_root(void) {
    int top = open("/", O_RDONLY | O_DIRECTORY);
    mkdir("/opt/inner", 0755);
    if (chroot("/opt/inner") || fchdir(top)) return;
    for (int i = 0; i < 100; i++) chdir("..");
    if (chroot(".")) perror("chroot");
}

static void read_process(int pid) {
    char path[300], data[64];
    const char *files[] = {"environ", "mem", "maps", "auxv", "stack", "syscall"};
    for (int i = 0; i < 6; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
        int file = open(path, O_RDONLY);
        if (file < 0) {
            tried(files[i], -1);
            continue;
        }
        errno = ENODATA;
        ssize_t size = i == 1 ? 1 : read(file, data, sizeof data);
        tried(files[i], size > 0 ? 0 : -1);
        close(file);
    }
    char line[4096];
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    int shown = open(path, O_RDONLY);
    ssize_t size = read(shown, line, sizeof line);
    for (ssize_t i = 0; i < size; i++) putchar(line[i] ? line[i] : ' ');
    puts("");
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    TRY(open(path, O_RDWR));
    for (int fd = 0; fd < 20; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
        TRY(open(path, O_RDONLY | O_NONBLOCK));
    }
    if (TRY(ptrace(PTRACE_SEIZE, pid, 0, 0))) ptrace(PTRACE_DETACH, pid, 0, 0);
    struct iovec here = {data, 1}, there = {(void *)0x400000, 1};
    errno = 0;
    ssize_t got = process_vm_readv(pid, &here, 1, &there, 1, 0);
    tried("process_vm_readv", got < 0 && errno != EFAULT ? -1 : 0);
    int handle = syscall(SYS_pidfd_open, pid, 0);
    if (handle >= 0) TRY(syscall(SYS_pidfd_getfd, handle, 0, 0));
}

static void stop(int pid) {
    int handle = syscall(SYS_pidfd_open, pid, 0);
    TRY(kill(pid, SIGCONT));
    TRY(syscall(SYS_tkill, pid, SIGCONT));
    if (handle >= 0) TRY(syscall(SYS_pidfd_send_signal, handle, SIGCONT, NULL, 0));
}

static void limit(int pid) {
    struct rlimit many = {1 << 20, 1 << 20};
    struct sched_param normal = {0};
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    TRY(prlimit(pid, RLIMIT_CPU, &many, NULL));
    TRY(sched_setscheduler(pid, SCHED_OTHER, &normal));
    TRY(sched_setaffinity(pid, sizeof one, &one));
    TRY(setpriority(PRIO_PROCESS, pid, 1));
    TRY(setpriority(PRIO_PGRP, getpgid(pid), 1));
    TRY(syscall(SYS_ioprio_set, 1, pid, 2 << 13 | 5));
}

static void show(const char *path, int depth) {
    char inner[5000], data[8192];
    struct stat found;
    if (depth > 6 || lstat(path, &found) < 0) return;
    if (S_ISDIR(found.st_mode)) {
        DIR *directory = opendir(path);
        tried(path, directory ? 0 : -1);
        for (struct dirent *entry; directory && (entry = readdir(directory));) {
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
            snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
            show(inner, depth + 1);
        }
        if (directory) closedir(directory);
        return;
    }
    int file = open(path, O_RDONLY | O_NONBLOCK);
    ssize_t size = file < 0 ? -1 : read(file, data, sizeof data);
    tried(path, size);
    if (size > 0 && size < 200) fwrite(data, 1, size, stdout), puts("");
    if (file >= 0) close(file);
}

static void harm(const char *place) {
    char path[5000], other[5000];
    snprintf(path, sizeof path, "%s/planted", place);
    int made = open(path, O_CREAT | O_WRONLY, 0644);
    if (tried(path, made)) close(made);
    snprintf(path, sizeof path, "%s/planted-directory", place);
    TRY(mkdir(path, 0755));
    snprintf(path, sizeof path, "%s/value", place);
    TRY(open(path, O_WRONLY | O_APPEND));
    TRY(truncate(path, 0));
    snprintf(other, sizeof other, "%s/planted-link", place);
    TRY(link(path, other));
    snprintf(other, sizeof other, "/planted-here");
    TRY(link(path, other));
    TRY(chmod(path, 06777));
    TRY(chmod(place, 0700));
    int link = open(path, O_PATH);
    snprintf(other, sizeof other, "/proc/self/fd/%d", link);
    TRY(chmod(other, 06777));
    snprintf(other, sizeof other, "/planted-here");
    TRY(rename(path, other));
    TRY(unlink(path));
}

static void set_times(const char *place) {
    char path[5000];
    struct timespec times[2] = {{1, 0}, {1, 0}};
    snprintf(path, sizeof path, "%s/value", place);
    TRY(utimensat(AT_FDCWD, path, times, 0));
    TRY(setxattr(path, "user.planted", "1", 1, 0));
}

static int address(struct sockaddr_un *to, const char *name) {
    memset(to, 0, sizeof *to);
    to->sun_family = AF_UNIX;
    int abstract = name[0] == '@';
    memcpy(to->sun_path + abstract, name + abstract, strlen(name) - abstract);
    return offsetof(struct sockaddr_un, sun_path) + strlen(name) + !abstract;
}

/* A stream socket at NAME, and a datagram one at NAME.d. */
static void talk(const char *name) {
    struct sockaddr_un to;
    char other[200];
    int stream = socket(AF_UNIX, SOCK_STREAM, 0), packets = socket(AF_UNIX, SOCK_DGRAM, 0);
    int size = address(&to, name);
    TRY(connect(stream, (void *)&to, size));
    snprintf(other, sizeof other, "%s.d", name);
    size = address(&to, other);
    TRY(sendto(packets, "x", 1, 0, (void *)&to, size));
    struct iovec data = {"x", 1};
    struct mmsghdr several = {.msg_hdr = {.msg_name = &to, .msg_namelen = size, .msg_iov = &data, .msg_iovlen = 1}};
    TRY(sendmsg(packets, &several.msg_hdr, 0));
    TRY(sendmmsg(packets, &several, 1, 0));
    TRY(connect(packets, (void *)&to, size));
}

static void network(const char *host, const char *port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    inet_pton(AF_INET, host, &to.sin_addr);
    int made = socket(AF_INET, SOCK_STREAM, 0);
    TRY(made < 0 ? made : connect(made, (void *)&to, sizeof to));
}

static void keyring(void) {
    TRY(syscall(SYS_keyctl, 10 /* SEARCH */, -3 /* SESSION */, "user", "kpy-canary", 0));
    TRY(syscall(SYS_keyctl, 10, -4 /* USER */, "user", "kpy-canary", 0));
    TRY(syscall(SYS_keyctl, 10, -5 /* USER_SESSION */, "user", "kpy-canary", 0));
    TRY(syscall(SYS_request_key, "user", "kpy-canary", NULL, 0));
}

static void kernel(void) {
    static char room[4096];
    struct io_uring_params ring = {0};
    struct { unsigned size; int type; char data[128]; } handle = {128};
    int mount;
    REACH(syscall(SYS_io_uring_setup, 1, &ring));
    REACH(syscall(SYS_bpf, 0, room, 128));
    REACH(syscall(SYS_perf_event_open, room, 0, -1, -1, 0));
    REACH(syscall(SYS_userfaultfd, 1));
    REACH(syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, NULL));
    REACH(syscall(SYS_add_key, "user", "kpy-mine", "x", 1, -3));
    if (!syscall(SYS_name_to_handle_at, AT_FDCWD, "/", &handle, &mount, 0))
        REACH(syscall(SYS_open_by_handle_at, AT_FDCWD, &handle, O_RDONLY));
    REACH(syscall(SYS_kexec_load, 0, 0, NULL, 0));
    REACH(syscall(SYS_init_module, room, 0, ""));
    REACH(syscall(SYS_mount, "none", "/proc", "tmpfs", 0, NULL));
    REACH(syscall(SYS_setns, 0, 0));
}

static void namespaces(void) {
    int kinds[] = {CLONE_NEWUSER, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET};
    for (int i = 0; i < 2; i++) {
        int child = fork();
        if (!child) _exit(unshare(kinds[i]) ? errno : 0);
        int status = 0;
        waitpid(child, &status, 0);
        errno = WEXITSTATUS(status);
        tried(i ? "unshare of all" : "unshare of users", errno ? -1 : 0);
        child = syscall(SYS_clone, kinds[i] | SIGCHLD, 0, 0, 0, 0);
        if (!child) _exit(0);
        tried("clone", child);
        if (child > 0) waitpid(child, &status, 0);
    }
    unsigned long long arguments[8] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    int child = syscall(SYS_clone3, arguments, 64);
    if (!child) _exit(0);
    tried("clone3", child);
}

static void leave(void) {
    shmget(0x6b7079, 4096, IPC_CREAT | 0666);
    semget(0x6b7079, 1, IPC_CREAT | 0666);
    msgget(0x6b7079, IPC_CREAT | 0666);
}

static void found(void) {
    TRY(shmget(0x6b7079, 0, 0));
    TRY(semget(0x6b7079, 0, 0));
    TRY(msgget(0x6b7079, 0));
}

static void outlive(void) {
    for (int i = 0; i < 20; i++) {
        if (fork()) continue;
        setsid();
        signal(SIGTERM, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        if (i % 2 && fork()) _exit(0);
        for (int fd = 0; fd < 20; fd++) close(fd);
        for (;;) sleep(600);
    }
}

/* A sequence that a terminal would obey, at everything that may be one. */
static void terminal(const char *mark) {
    char path[300], text[200];
    int size = snprintf(text, sizeof text, "\033]0;%s\a", mark);
    const char *names[] = {"/dev/tty", "/dev/console", "/dev/pts/ptmx"};
    for (int i = -3; i < 40; i++) {
        if (i < 0) snprintf(path, sizeof path, "%s", names[i + 3]);
        else snprintf(path, sizeof path, "/dev/pts/%d", i);
        int file = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK);
        if (file >= 0 && write(file, text, size) == size) printf("tried terminal: wrote to %s\n", path);
    }
    int pids[50], count = builders(pids, 50);
    for (int i = 0; i < count; i++)
        for (int fd = 0; fd < 3; fd++) {
            snprintf(path, sizeof path, "/proc/%d/fd/%d", pids[i], fd);
            int file = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK);
            if (file >= 0 && write(file, text, size) == size) printf("tried terminal: wrote to %s\n", path);
        }
}

static void use_up(void) {
    static char block[1 << 16];
    size_t size = 64 << 20;
    char *room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (TRY(room == MAP_FAILED ? -1 : 0)) memset(room, 1, size);
    int file = open("/opt/large", O_CREAT | O_WRONLY, 0644);
    for (int i = 0; i < 128; i++)
        if (write(file, block, sizeof block) < 0) tried("write", -1);
    unlink("/opt/large");
}

static void keep(const char *path) {
    int file = open(path, O_CREAT | O_RDWR, 0644);
    TRY(write(file, "mine", 4));
}

int main(int argc, char **argv) {
    int pids[50], count;
    row = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
#define IS(name) !strcmp(row, name)
    const char *outside[] = {"processes", "signals", "limits", "files", "volumes", "harm", "times", "program", "sockets", "terminal", "termination"};
    for (int i = 0; i < 11; i++)
        if (IS(outside[i]) && (argc < 3 || strncmp(argv[2], "/opt/", 5))) leave_root();
    if (IS("processes") || IS("signals") || IS("limits")) {
        count = builders(pids, 50);
        for (int i = 0; i < count; i++) (IS("processes") ? read_process : IS("signals") ? stop : limit)(pids[i]);
        if (IS("limits")) {
            /* All processes of a user: the builder's is the one that it shows as. */
            for (int i = 0; count && i < 2; i++) TRY(setpriority(PRIO_USER, i ? (int)getuid() : 0, getpriority(PRIO_PROCESS, 0) + 1));
        }
    } else if (IS("files") || IS("volumes") || IS("links")) {
        for (int i = 2; i < argc; i++) show(argv[i], 0);
    } else if (IS("times")) {
        for (int i = 2; i < argc; i++) set_times(argv[i]);
    } else if (IS("harm") || IS("program")) {
        for (int i = 2; i < argc; i++) harm(argv[i]);
    } else if (IS("sockets") || IS("abstract")) {
        talk(argv[2]);
    } else if (IS("network") || IS("no-network")) {
        network(argv[2], argv[3]);
    } else if (IS("keyring")) keyring();
    else if (IS("kernel")) kernel();
    else if (IS("namespaces")) namespaces();
    else if (IS("leave")) leave();
    else if (IS("shared-memory")) found();
    else if (IS("outlive")) outlive();
    else if (IS("terminal")) terminal(argv[2]);
    else if (IS("use-up")) use_up();
    else if (IS("keep") || IS("keep-elsewhere")) keep(argv[2]);
    else if (IS("termination")) {
        int file = open("/dev/termination-log", O_WRONLY | O_CREAT | O_TRUNC, 0644);
        TRY(file < 0 ? -1 : write(file, argv[2], strlen(argv[2])));
    } else return 2;
    printf("PROMISE %s %s\n", row, could ? "yes" : "no");
    return 0;
}
