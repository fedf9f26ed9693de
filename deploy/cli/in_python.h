/* in_python.h - commands that are clients of a server: modules of deploy/python, run by the system's Python in our place.
 *
 *     banyan bench serve … ──exec──▶ python3 -m banyan.bench serve …       BANYAN_PYTHON names another Python
 *
 * Always: the standard library is enough for them. Returns only when it cannot be done, with an exit status.
 * Owner: the command. */
#ifndef DEPLOY_CLI_IN_PYTHON_H
#define DEPLOY_CLI_IN_PYTHON_H

/* The words from argv[from] on are the module's own. */
int in_python(const char *module, int argc, char **argv, int from);

#endif
