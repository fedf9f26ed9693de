#include "deploy/cli/cmd.h"
#include "common/base/cgroup.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/options_meant.h"
#include "common/base/proc.h"
#include "common/modelfile/model_dir.h"
#include "common/net/keys.h"
#include "common/text/tokenizer.h"
#include "deploy/cli/fetch_model.h"
#include "deploy/cli/supervise.h"

#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

/* banyan doctor: what would stop this machine from serving with these options. One line a subject: ok, note or BAD; the exit
 * status says whether there was a BAD. It starts and changes nothing. */

enum verdict { GOOD, NOTE, BAD };

static struct doctor {
    struct by_options o;
    uint64_t free_bytes;
    uint32_t n_bad;
} doctor;

BY_PRINTF(3, 4) static void say(enum verdict v, const char *subject, const char *fmt, ...) {
    static const char *const marks[] = {"ok  ", "note", "BAD "};
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    printf("%s  %-15s%s\n", marks[v], subject, text);
    doctor.n_bad += v == BAD;
}

static double gb(uint64_t bytes) {
    return (double)bytes / 1e9;
}

/* ---- the machine ---- */

static bool read_file(const char *path, struct by_buf *text) {
    by_buf_init(text, 1 << 20);
    return by_file_read(text, path, NULL) == 0 && text->n;
}

static uint64_t number_after(const char *text, const char *name) {
    const char *at = text ? strstr(text, name) : NULL;
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static void look_at_memory(void) {
    struct by_buf info;
    struct by_cgroup group;
    uint64_t total = 0;
    if (read_file("/proc/meminfo", &info)) {
        total = number_after(info.p, "MemTotal:") * 1024;
        doctor.free_bytes = number_after(info.p, "MemAvailable:") * 1024;
    }
    by_cgroup_read(&group, BY_CGROUP_ROOT, BY_CGROUP_MINE);
    bool is_limited = group.memory_max < total;
    total = BY_MIN(total, group.memory_max);
    doctor.free_bytes = BY_MIN(doctor.free_bytes, group.memory_free);
    say(doctor.free_bytes < 300000000 ? BAD : GOOD, "memory", "%.1f GB free of %.1f GB%s",
        gb(doctor.free_bytes), gb(total), is_limited ? " that the control group allows" : "");
    by_buf_release(&info);
}

static bool has_word(const char *text, const char *word) {
    size_t n = strlen(word);
    for (const char *at = text; (at = strstr(at, word)) != NULL; at += n) {
        if (at > text && at[-1] == ' ' && (at[n] == ' ' || at[n] == '\n')) return true;
    }
    return false;
}

static void look_at_cpu(void) {
    static const char *const sets[] = {"avx2",        "fma",         "avx512f",
                                       "avx512_vnni", "avx512_bf16", "amx_tile"};
    struct by_buf info;
    char found[128] = "";
    bool is_known = read_file("/proc/cpuinfo", &info);
    for (size_t i = 0; is_known && i < BY_COUNTOF(sets); i++) {
        size_t n = strlen(found);
        if (has_word(info.p, sets[i])) snprintf(found + n, sizeof found - n, " %s", sets[i]);
    }
    bool is_slow = !strstr(found, "avx2") || !strstr(found, "fma");
    say(is_slow ? NOTE : GOOD, "processors", "%u may be used;%s%s", by_proc_n_cpus(),
        found[0] ? found : " none of the instruction sets",
        is_slow ? "; without avx2 and fma the CPU engine runs its portable code, slowly" : "");
    by_buf_release(&info);
}

static void look_at_gpu(void) {
    struct by_buf version;
    bool has_driver = read_file("/proc/driver/nvidia/version", &version);
    void *lib = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!has_driver && !lib)
        say(NOTE, "GPU", "none: models run on the CPU");
    else if (!lib)
        say(NOTE, "GPU", "there is a driver, but libcuda.so.1 cannot be loaded: %s", dlerror());
    else if (access("/dev/nvidiactl", R_OK | W_OK))
        say(NOTE, "GPU", "/dev/nvidiactl: %s", strerror(errno));
    else
        say(GOOD, "GPU", "%.80s", has_driver ? version.p : "libcuda.so.1 is there");
    if (lib) dlclose(lib);
    by_buf_release(&version);
}

static void look_at_limits(void) {
    uint64_t have;
    bool is_low = by_proc_lacks_files((uint64_t)doctor.o.max_connections, &have);
    say(is_low ? NOTE : GOOD, "open files", "%llu allowed%s", (unsigned long long)have,
        is_low ? "; fewer than --max-connections needs: connections beyond it wait" : "");
}

/* ---- what the server needs of it ---- */

static void look_at_socket(const char *path) {
    char *dir = by_path_dir(path);
    size_t most = sizeof((struct sockaddr_un *)0)->sun_path - 1;
    if (strlen(path) > most)
        say(BAD, "socket", "--uds %s: its name has %zu bytes, %zu are possible", path, strlen(path),
            most);
    else if (access(dir, W_OK | X_OK))
        say(BAD, "socket", "--uds %s: %s: %s", path, dir, strerror(errno));
    else
        say(GOOD, "socket", "%s", path);
    by_free(dir);
}

static void look_at_port(void) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *a = NULL;
    char port[16];
    int one = 1;
    if (doctor.o.uds) {
        look_at_socket(doctor.o.uds);
        return;
    }
    snprintf(port, sizeof port, "%d", (int)doctor.o.port);
    int rc = getaddrinfo(doctor.o.host, port, &hints, &a);
    if (rc) {
        say(BAD, "port", "--host %s: %s", doctor.o.host, gai_strerror(rc));
        return;
    }
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_free = fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) &&
                   !bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, 1);
    if (is_free)
        say(GOOD, "port", "%s port %s is free", doctor.o.host, port);
    else
        say(BAD, "port", "%s port %s: %s; %s", doctor.o.host, port, strerror(errno),
            errno == EACCES          ? "choose one from 1024 on by --port"
            : errno == EADDRNOTAVAIL ? "it is no address of this machine: see --host"
                                     : "stop what has it, or choose one by --port");
    if (fd >= 0) close(fd);
    freeaddrinfo(a);
}

static void look_at_run_dir(void) {
    const char *base = getenv("XDG_RUNTIME_DIR");
    const char *dir = doctor.o.run_dir                       ? doctor.o.run_dir
                      : base && *base && !access(base, W_OK) ? base
                                                             : "/tmp";
    bool is_there = by_file_is_dir(dir);
    char *parent = by_path_dir(dir);
    struct statvfs fs;
    if (strlen(dir) > SUPERVISE_DIR_MAX)
        say(BAD, "run directory",
            "%s: its name has %zu bytes, %d are possible; name another with --run-dir", dir,
            strlen(dir), SUPERVISE_DIR_MAX);
    else if (access(is_there ? dir : parent, W_OK | X_OK))
        say(BAD, "run directory", "%s: %s; name another with --run-dir", dir, strerror(errno));
    else if (!statvfs(is_there ? dir : parent, &fs) && !fs.f_favail && fs.f_files)
        say(BAD, "run directory", "%s: no inode is free", dir);
    else
        say(GOOD, "run directory", "%s", dir);
    by_free(parent);
}

static void look_at_programs(void) {
    static const char *const names[] = {"banyan-router", "banyan-tokenizer-worker",
                                        "banyan-scheduler", "banyan-gpu-worker",
                                        "banyan-detokenizer"};
    char *dir = by_proc_exe_dir(), missing[256] = "";
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        char *path = by_path_join(dir, names[i]);
        size_t n = strlen(missing);
        if (access(path, X_OK)) snprintf(missing + n, sizeof missing - n, " %s", names[i]);
        by_free(path);
    }
    if (missing[0])
        say(BAD, "programs", "not in %s:%s", dir, missing);
    else
        say(GOOD, "programs", "all in %s", dir);
    by_free(dir);
}

static void look_at_keys(void) {
    struct by_keys keys;
    struct by_err err = {0};
    int rc = doctor.o.curve_key_file ? by_keys_read(&keys, doctor.o.curve_key_file, &err)
                                     : by_keys_make(&keys, &err);
    if (rc)
        say(doctor.o.curve_key_file ? BAD : NOTE, "keys", "%s", err.text);
    else
        say(GOOD, "keys",
            doctor.o.curve_key_file ? "--curve-key-file is whole and private"
                                    : "libzmq has CURVE: processes may be on several hosts");
    explicit_bzero(&keys, sizeof keys);
}

static void look_at_model(void) {
    struct by_model_dir *d = NULL;
    struct by_err err = {0};
    struct by_str repo;
    if (!doctor.o.model_path) doctor.o.model_path = fetch_default_here();
    const char *path = doctor.o.model_path;
    if (!path || fetch_is_hub_id(path, &repo)) {
        say(NOTE, "model", "%s comes by download when the server starts",
            path ? path : "SmolLM2-135M-Instruct");
        return;
    }
    if (by_model_dir_open(&d, path, &err)) {
        say(BAD, "model", "%s", err.text);
        return;
    }
    const struct by_model_info *m = by_model_dir_info(d);
    uint64_t bytes = by_model_dir_weight_bytes(d);
    if (bytes > doctor.free_bytes)
        say(NOTE, "model", "%s: its %.1f GB of weights are more than the %.1f GB of memory free",
            path, gb(bytes), gb(doctor.free_bytes));
    else
        say(GOOD, "model", "%s, %.2f GB of weights", m ? m->architecture : path, gb(bytes));
    by_model_dir_close(d);
    if (by_model_dir_open_text(&d, doctor.o.tokenizer_path ? doctor.o.tokenizer_path : path, &err))
        say(BAD, "tokenizer", "%s", err.text);
    else if (by_model_dir_kind(d) != BY_MODEL_GGUF && !by_tokenizer_file_of(d))
        say(BAD, "tokenizer", "%s has no file that holds a tokenizer; name one by --tokenizer-path",
            by_model_dir_path(d));
    else
        say(GOOD, "tokenizer", "in %s", by_model_dir_path(d));
    by_model_dir_close(d);
}

static void tell_variable(const char *text) {
    say(NOTE, "options", "%s", text);
}

int cmd_doctor(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan doctor",
        .who = BY_FOR_SERVE | BY_FOR_DAEMONS,
        .usage = "[MODEL-PATH] [options]",
        .n_words = 1,
        .summary = "says what would stop this machine from serving with these options"};
    struct by_err err = {0};
    if (by_options_parse(&doctor.o, &program, argc, argv, &err)) {
        say(BAD, "options", "%s", err.text);
        return 1;
    }
    if (cmd_take_model(&doctor.o, &err)) say(BAD, "options", "%s", err.text);
    say(GOOD, "options", "%s", doctor.o.config ? doctor.o.config : "understood");
    by_options_strange_env(tell_variable);
    look_at_programs();
    look_at_cpu();
    look_at_memory();
    look_at_gpu();
    look_at_limits();
    look_at_port();
    look_at_run_dir();
    look_at_keys();
    look_at_model();
    by_options_release(&doctor.o);
    if (doctor.n_bad) printf("\n%u would stop the server\n", doctor.n_bad);
    return doctor.n_bad ? 1 : 0;
}
