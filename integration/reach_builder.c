/* What a RUN may try on the builder, and on the process that holds the RUN, where it sees them: by /proc, and by limits. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *who;
#define TRY(what) printf("%s %s %s\n", (errno = 0, (what) < 0) ? strerrorname_np(errno) : "DONE", who, #what)

static void attack(const char *pid, const char *place) {
    char top[200], path[300];
    struct stat st;
    struct rlimit none = {0, 0};
    const char *ways[] = {"root", "cwd/../../../../../../../.."};
    for (int i = 0; i < 2; i++) {
        snprintf(top, sizeof top, "/proc/%s/%s%s", pid, ways[i], place);
        snprintf(path, sizeof path, "%s/secret", top);
        TRY(stat(path, &st));
        TRY(open(path, O_RDONLY));
        TRY(chmod(path, 06777));
        TRY(chown(path, 5, 5));
        snprintf(path, sizeof path, "%s/made", top);
        TRY(mkdir(path, 0077));
        snprintf(path, sizeof path, "%s/created", top);
        TRY(open(path, O_CREAT | O_WRONLY, 0077));
        umask(0700);
        snprintf(path, sizeof path, "%s/link", top);
        TRY(symlink("/etc/passwd", path));
        umask(022);
    }
    snprintf(path, sizeof path, "/proc/%s/oom_score_adj", pid);
    TRY(open(path, O_WRONLY));
    snprintf(path, sizeof path, "/proc/%s/environ", pid);
    TRY(open(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/%s/mem", pid);
    TRY(open(path, O_RDWR));
    TRY(prlimit(atoi(pid), RLIMIT_NOFILE, &none, NULL));
    TRY(prlimit(atoi(pid), RLIMIT_FSIZE, &none, NULL));
    struct sched_param normal = {0};
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    TRY(sched_setscheduler(atoi(pid), SCHED_IDLE, &normal));
    TRY(sched_setaffinity(atoi(pid), sizeof one, &one));
    TRY(setpriority(PRIO_PROCESS, atoi(pid), 19));
    TRY(setpriority(PRIO_PGRP, atoi(pid), 19));
    TRY(setpriority(PRIO_USER, 0, 19));
    TRY(syscall(SYS_ioprio_set, 1, atoi(pid), 7 | 3 << 13));
    TRY(syscall(SYS_ioprio_set, 2, atoi(pid), 7 | 3 << 13));
    TRY(syscall(SYS_ioprio_set, 3, 0, 7 | 3 << 13));
    TRY(syscall(SYS_ioprio_set, 3, getuid(), 7 | 3 << 13));
    TRY(setpriority(PRIO_USER, getuid(), 19));
    snprintf(path, sizeof path, "%s/secret", place);
    TRY(setxattr(path, "user.kpy.root", "1", 1, 0));
    int directory = open(place, O_PATH | O_DIRECTORY);
    TRY(chmod(path, 0));
    TRY(chmod(path, 04755));
    TRY(fchmodat(directory, "secret", 0400, 0));
    TRY(syscall(452 /* fchmodat2 */, directory, "secret", 0400, 0));
    TRY(fchmodat(AT_FDCWD, place, 0, 0));
    snprintf(path, sizeof path, "/proc/self/fd/%d", directory);
    TRY(chmod(path, 0555));
    symlink(place, "/opt/link");
    TRY(chmod("/opt/link/secret", 0400));
    TRY(chmod("/opt/link", 0500));
    TRY(chown("/opt/link/secret", 5, 5));
}

int main(int argc, char **argv) {
    char path[300], line[4096];
    DIR *directory = opendir("/proc");
    int found = 0;
    struct rlimit limit;
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (!atoi(entry->d_name) || atoi(entry->d_name) == getpid()) continue;
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        FILE *file = fopen(path, "r");
        size_t size = file ? fread(line, 1, sizeof line, file) : 0;
        if (file) fclose(file);
        if (!memmem(line, size, "kpy", 3)) continue;
        who = memmem(line, size, "sandbox", 7) ? "holder" : "builder";
        found += *who == 'b';
        attack(entry->d_name, argv[1]);
    }
    printf("found %d\n", found);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 77;
    printf("own %d\n", prlimit(getpid(), RLIMIT_NOFILE, &limit, NULL)); /* its own it may set */
    return 0;
}
