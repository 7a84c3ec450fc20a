/* Stands between a process and its data.mdb (or data.mdb.partial, a copy on its way), loaded with LD_PRELOAD.
 *
 * It records what the process writes to and syncs on that file, so that a test can work out every state a power
 * cut could leave on the disk; and it fails chosen calls, as a bad or a full disk does. Nothing else is touched.
 *
 *   DISK_TRACE          file that records are appended to; unset: nothing is recorded
 *   DISK_SYNC_US        how many microseconds a sync takes, as files in memory take none
 *   DISK_FAULT          EIO or ENOSPC: the call fails; SHORT: a write writes half, a sync fails with EIO;
 *                       FULL: the file finds room for little more, as on a disk that fills up: the write that
 *                       gets there is a short one, later ones fail with ENOSPC, and statvfs says so
 *   DISK_FAULT_TRIGGER  calls count and fail only while this file is there
 *   DISK_FAULT_CALLS    which calls count: any of w (writes), m (writes that are durable on return, as LMDB's
 *                       meta page), s (syncs)
 *   DISK_FAULT_NTH      the call that fails, counted from 1
 *   DISK_FAULT_LASTING  set: all calls from the Nth on fail
 *
 * A record is a header and, for writes, the bytes. Kinds:
 *
 *   W  written: offset, length, bytes     D  this range is on the disk (a descriptor with O_DSYNC)
 *   T  truncated: offset is the size      S  synced: all that was recorded before the number in offset
 *   A  allocated: offset, length          E  a sync failed: what the number in offset covers may be lost
 *   M  mapped for writing, or otherwise changed in a way that is not recorded: the trace is of no use
 *   F  a fault was made: length is the letter of the call
 *
 * A call that syncs and is not known here counts as none, which only makes the test harder. A write that is
 * not known here shows when the trace is compared with the file.
 *
 * The system calls are made directly, so that no function has to be looked up before its first call.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if __SIZEOF_LONG__ != 8
#error "offsets are passed to the system calls as one 64-bit argument"
#endif

struct header {
    uint64_t number; /* of the record, from 1 */
    uint64_t kind;
    uint64_t offset;
    uint64_t length;
};

enum { DATA_FILE = 1, DURABLE = 2, MAX_FDS = 4096 };
enum { ROOM_BYTES = 10240 }; /* no whole number of pages, so that the last write is cut */
static unsigned char descriptors[MAX_FDS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace_fd = -1;
static uint64_t recorded;
static uint64_t counted;

static int is_data_file(int fd) { return fd >= 0 && fd < MAX_FDS && descriptors[fd]; }

static int is_durable(int fd) { return descriptors[fd] & DURABLE; }

/* ---- the trace ---- */

static void end(const char *why) {
    (void)!syscall(SYS_write, STDERR_FILENO, why, strlen(why));
    abort();
}

/* Appends a record, with one write. `block` has room for the header before the data; NULL: no data. */
static void append(char kind, uint64_t offset, uint64_t length, struct header *block) {
    struct header alone;
    size_t size = sizeof alone + (block ? length : 0);
    struct header *record = block ? block : &alone;
    const char *path = getenv("DISK_TRACE");
    if (!path)
        return;
    pthread_mutex_lock(&lock);
    if (trace_fd < 0)
        trace_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    *record = (struct header){++recorded, (uint64_t)kind, offset, length};
    if (syscall(SYS_write, trace_fd, record, size) != (long)size)
        end("disk shim: the trace cannot be written\n");
    pthread_mutex_unlock(&lock);
}

/* ---- the faults ---- */

static int is_fault(const char *kind) {
    const char *wanted = getenv("DISK_FAULT"), *trigger = getenv("DISK_FAULT_TRIGGER");
    return wanted && trigger && !strcmp(wanted, kind) && !access(trigger, F_OK);
}

/* Whether this call's turn to fail has come. */
static int is_due(char call) {
    const char *calls = getenv("DISK_FAULT_CALLS"), *nth = getenv("DISK_FAULT_NTH");
    if (!calls || !nth || !strchr(calls, call))
        return 0;
    pthread_mutex_lock(&lock);
    uint64_t number = ++counted, wanted = strtoull(nth, NULL, 10);
    pthread_mutex_unlock(&lock);
    return number == wanted || (number > wanted && getenv("DISK_FAULT_LASTING"));
}

/* The error that a call has to fail with; 0 for none. Where a part of a write finds room, `size` is cut. */
static int fault(char call, int fd, off_t offset, size_t *size) {
    static off_t full_at;
    size_t wanted = *size;
    int error = 0;
    if (is_fault("FULL")) {
        if (!full_at)
            full_at = syscall(SYS_lseek, fd, 0L, SEEK_END) + ROOM_BYTES;
        if (call == 'w' && offset + (off_t)wanted > full_at)
            *size = offset < full_at ? (size_t)(full_at - offset) : 0;
        error = *size || !wanted ? 0 : ENOSPC;
    } else if (is_fault("SHORT") && is_due(call)) {
        *size /= 2;
        error = wanted ? 0 : EIO;
    } else if ((is_fault("EIO") || is_fault("ENOSPC")) && is_due(call)) {
        error = is_fault("EIO") ? EIO : ENOSPC;
    }
    if (error || *size != wanted)
        append('F', 0, (uint64_t)call, NULL);
    return error;
}

int statvfs(const char *path, struct statvfs *result) {
    int (*next)(const char *, struct statvfs *);
    *(void **)&next = dlsym(RTLD_NEXT, "statvfs");
    int error = next(path, result);
    if (!error && is_fault("FULL"))
        result->f_bfree = result->f_bavail = 0;
    return error;
}

/* Who is answered before the sync has to have the time to notice. */
static void take_time(void) {
    const char *time_us = getenv("DISK_SYNC_US");
    if (time_us)
        usleep(strtoul(time_us, NULL, 10));
}

/* ---- writes ---- */

static ssize_t write_data(int fd, const struct iovec *parts, int count, off_t offset, int positioned) {
    size_t size = 0, done = 0;
    for (int part = 0; part < count; part++)
        size += parts[part].iov_len;
    struct header *block = malloc(sizeof *block + size);
    if (!block)
        end("disk shim: no memory\n");
    char *bytes = (char *)(block + 1);
    for (int part = 0; part < count; done += parts[part++].iov_len)
        memcpy(bytes + done, parts[part].iov_base, parts[part].iov_len);
    if (!positioned)
        offset = syscall(SYS_lseek, fd, 0L, SEEK_CUR);

    size_t wanted = size;
    int error = fault(is_durable(fd) ? 'm' : 'w', fd, offset, &size);
    ssize_t written = -1;
    /* A write that has to be durable reaches the page cache even when its flush fails. */
    if (!error || is_durable(fd)) {
        written = syscall(SYS_pwrite64, fd, bytes, size, offset);
        if (written < 0)
            error = errno;
    }
    if (written > 0) {
        if (!positioned)
            syscall(SYS_lseek, fd, offset + written, SEEK_SET);
        append('W', (uint64_t)offset, (uint64_t)written, block);
        if (is_durable(fd) && !error && size == wanted) {
            take_time();
            append('D', (uint64_t)offset, (uint64_t)written, NULL);
        }
    }
    free(block);
    if (error) {
        errno = error;
        return -1;
    }
    return written;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (!is_data_file(fd))
        return syscall(SYS_write, fd, data, size);
    return write_data(fd, &(struct iovec){(void *)data, size}, 1, 0, 0);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    if (!is_data_file(fd))
        return syscall(SYS_pwrite64, fd, data, size, offset);
    return write_data(fd, &(struct iovec){(void *)data, size}, 1, offset, 1);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!is_data_file(fd))
        return syscall(SYS_writev, fd, parts, count);
    return write_data(fd, parts, count, 0, 0);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    if (!is_data_file(fd))
        return syscall(SYS_pwritev, fd, parts, count, offset, 0L);
    return write_data(fd, parts, count, offset, 1);
}

int ftruncate(int fd, off_t size) {
    int result = syscall(SYS_ftruncate, fd, size);
    if (is_data_file(fd) && !result)
        append('T', (uint64_t)size, 0, NULL);
    return result;
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    int result = syscall(SYS_fallocate, fd, mode, offset, length);
    if (is_data_file(fd) && !result)
        append(mode ? 'M' : 'A', (uint64_t)offset, (uint64_t)length, NULL); /* a mode can make holes */
    return result;
}

int posix_fallocate(int fd, off_t offset, off_t length) { return fallocate(fd, 0, offset, length) ? errno : 0; }

/* ---- syncs ---- */

static int sync_data(long call, int fd) {
    if (!is_data_file(fd))
        return syscall(call, fd);
    uint64_t covered = __atomic_load_n(&recorded, __ATOMIC_SEQ_CST);
    size_t nothing = 0;
    take_time();
    int error = fault('s', fd, 0, &nothing);
    error = !error && syscall(call, fd) ? errno : error;
    append(error ? 'E' : 'S', covered, 0, NULL);
    errno = error;
    return error ? -1 : 0;
}

int fsync(int fd) { return sync_data(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_data(SYS_fdatasync, fd); }

/* ---- which descriptors are the data file ---- */

static int opened(int fd, const char *path, int flags) {
    const char *slash = strrchr(path, '/');
    if (fd >= 0 && fd < MAX_FDS) {
        const char *name = slash ? slash + 1 : path;
        int is_data = !strcmp(name, "data.mdb") || !strcmp(name, "data.mdb.partial");
        descriptors[fd] = is_data ? DATA_FILE | (flags & O_DSYNC ? DURABLE : 0) : 0; /* O_SYNC has O_DSYNC */
    }
    return fd;
}

int openat(int folder, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, int) : 0;
    va_end(rest);
    return opened(syscall(SYS_openat, folder, path, flags, mode), path, flags);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, int) : 0;
    va_end(rest);
    return opened(syscall(SYS_openat, AT_FDCWD, path, flags, mode), path, flags);
}

int close(int fd) {
    if (fd >= 0 && fd < MAX_FDS)
        descriptors[fd] = 0;
    return syscall(SYS_close, fd);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    /* What is written through a map cannot be seen here, so such a trace must not be trusted. */
    if (is_data_file(fd) && protection & PROT_WRITE && (flags & MAP_TYPE) != MAP_PRIVATE)
        append('M', 0, 0, NULL);
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

#define SAME(name, as) extern __typeof__(as) name __attribute__((alias(#as)))
SAME(pwrite64, pwrite);
SAME(pwritev64, pwritev);
SAME(ftruncate64, ftruncate);
SAME(fallocate64, fallocate);
SAME(posix_fallocate64, posix_fallocate);
SAME(open64, open);
SAME(openat64, openat);
SAME(mmap64, mmap);
extern int statvfs64(const char *, struct statvfs64 *) __attribute__((alias("statvfs")));
