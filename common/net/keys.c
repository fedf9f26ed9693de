#include "common/net/keys.h"

#include "common/base/file.h"

#include <zmq.h>

enum { FILE_BYTES_MAX = 16384, KEY_BYTES = 32 };

static bool is_key(struct by_str s) {
    char text[BY_KEYS_Z85];
    uint8_t bytes[KEY_BYTES];
    if (s.n != BY_KEYS_Z85 - 1) return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return zmq_z85_decode(bytes, text) != NULL;
}

static int take_line(struct by_keys *k, struct by_str line, const char *path, unsigned n,
                     struct by_err *err) {
    struct by_str word, key = line;
    by_str_split(&key, ' ', &word);
    key = by_str_trim(key);
    if (!is_key(key))
        return by_fail(err, BY_EFORMAT, "%s: line %u holds no key of 40 characters after its word",
                       path, n);
    char *to = NULL;
    if (by_str_eqz(word, "public")) to = k->public_key;
    if (by_str_eqz(word, "secret")) to = k->secret_key;
    if (by_str_eqz(word, "server")) to = k->server_key;
    if (by_str_eqz(word, "allow") && k->n_allowed < BY_KEYS_ALLOWED_MAX)
        to = k->allowed[k->n_allowed++];
    if (!to)
        return by_fail(err, BY_EFORMAT,
                       "%s: line %u is none of public, secret, server, allow (at most %d of those)",
                       path, n, BY_KEYS_ALLOWED_MAX - 1);
    memcpy(to, key.p, key.n);
    return 0;
}

/* Its own key is the first that it lets in, and whom it calls has the same unless the file names another. */
static void complete(struct by_keys *k) {
    memcpy(k->allowed[0], k->public_key, BY_KEYS_Z85);
    if (!k->server_key[0]) memcpy(k->server_key, k->public_key, BY_KEYS_Z85);
}

int by_keys_parse(struct by_keys *out, struct by_str text, const char *path, struct by_err *err) {
    char derived[BY_KEYS_Z85];
    struct by_str line;
    bool more = text.n > 0;
    *out = (struct by_keys){.n_allowed = 1};
    for (unsigned n = 1; more; n++) {
        more = by_str_split(&text, '\n', &line);
        line = by_str_trim(line);
        if (!line.n || line.p[0] == '#') continue;
        int rc = take_line(out, line, path, n, err);
        if (rc) return rc;
    }
    if (!out->public_key[0] || !out->secret_key[0])
        return by_fail(err, BY_EFORMAT,
                       "%s: no public or no secret key; `banyan keys FILE` makes both", path);
    if (zmq_curve_public(derived, out->secret_key) || strcmp(derived, out->public_key) != 0)
        return by_fail(err, BY_EFORMAT, "%s: the public key is not that of the secret one", path);
    complete(out);
    return 0;
}

int by_keys_read(struct by_keys *out, const char *path, struct by_err *err) {
    struct by_buf text;
    by_buf_init(&text, FILE_BYTES_MAX);
    int rc = by_file_read_secret(&text, path, err);
    if (!rc) rc = by_keys_parse(out, by_buf_str(&text), path, err);
    if (text.p) explicit_bzero(text.p, text.n);
    by_buf_release(&text);
    return rc;
}

int by_keys_make(struct by_keys *out, struct by_err *err) {
    *out = (struct by_keys){.n_allowed = 1};
    if (zmq_curve_keypair(out->public_key, out->secret_key))
        return by_fail(err, BY_EUNSUPPORTED, "libzmq was built without CURVE: %s",
                       zmq_strerror(zmq_errno()));
    complete(out);
    return 0;
}

void by_keys_write(const struct by_keys *k, struct by_buf *out) {
    by_buf_addf(
        out,
        "# Keys for --curve-key-file. Who has them belongs to the server: keep them secret.\n"
        "public %s\nsecret %s\n",
        k->public_key, k->secret_key);
    if (strcmp(k->server_key, k->public_key) != 0) by_buf_addf(out, "server %s\n", k->server_key);
    for (size_t i = 1; i < k->n_allowed; i++)
        by_buf_addf(out, "allow %s\n", k->allowed[i]);
}
