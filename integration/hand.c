/* Two RUNs with one cache mount at /c: `hand give PATH` opens a path of its own and hands the descriptor over, `hand take` writes
   by it when the other has ended, for three seconds, and says how its last try ended. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address = {AF_UNIX, "/c/s"};

static struct msghdr *message(int **descriptor) {
    static char byte[1], control[CMSG_SPACE(sizeof(int))];
    static struct iovec data = {byte, 1};
    static struct msghdr found = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&found);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    *descriptor = (int *)CMSG_DATA(head);
    return &found;
}

int main(int argc, char **argv) {
    char byte;
    if (!strcmp(argv[1], "wait")) return sleep(5);
    int *slot, made = socket(AF_UNIX, SOCK_STREAM, 0);
    struct msghdr *parcel = message(&slot);
    if (!strcmp(argv[1], "give")) {
        struct stat found;
        stat(argv[2], &found);
        while (connect(made, (void *)&address, sizeof address)) usleep(10000);
        *slot = open(argv[2], S_ISDIR(found.st_mode) ? O_RDONLY | O_DIRECTORY : O_RDWR);
        sendmsg(made, parcel, 0);
        return read(made, &byte, 1) != 1;
    }
    unlink("/c/s");
    bind(made, (void *)&address, sizeof address);
    listen(made, 1);
    int peer = accept(made, NULL, NULL);
    recvmsg(peer, parcel, 0);
    int got = *slot, result = 0;
    write(peer, "x", 1);
    while (read(peer, &byte, 1) > 0) continue;
    for (int i = 0; i < 300; i++) {
        errno = 0;
        result = openat(got, "planted", O_CREAT | O_WRONLY, 0644);
        if (result < 0 && errno == ENOTDIR) result = pwrite(got, "planted", 7, 0);
        else if (result >= 0) close(result);
        usleep(10000);
    }
    printf("last %s\n", result < 0 ? strerrorname_np(errno) : "DONE");
    return 0;
}
