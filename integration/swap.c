/* A cache mount at /c that two RUNs have: `swap make` puts two directories and two links to them there, `swap turn` exchanges the
   links for some seconds, and `swap try NAME` writes into the context wherever it was mounted meanwhile. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char path[200];
    struct stat found;
    if (!strcmp(argv[1], "make")) {
        for (int i = 1; i < 3; i++) {
            snprintf(path, sizeof path, "/c/r%d", i);
            mkdir(path, 0755);
            strcat(path, "/m");
            mkdir(path, 0755);
        }
        return symlink("r1", "/c/z") || symlink("r2", "/c/y");
    }
    if (!strcmp(argv[1], "turn")) {
        int top = open("/c", O_RDONLY | O_DIRECTORY);
        for (time_t end = time(NULL) + 12; time(NULL) < end;) {
            syscall(SYS_renameat2, top, "z", top, "y", 2);
            for (volatile int i = 0; i < 8000; i++) continue;
        }
        return 0;
    }
    for (int i = 1; i < 3; i++) {
        snprintf(path, sizeof path, "/c/r%d/m/Dockerfile", i);
        if (stat(path, &found)) continue;
        snprintf(path, sizeof path, "/c/r%d/m/%s", i, argv[2]);
        errno = 0;
        printf("wrote: %s\n", open(path, O_CREAT | O_WRONLY, 0644) < 0 ? strerrorname_np(errno) : "DONE");
    }
    return 0;
}
