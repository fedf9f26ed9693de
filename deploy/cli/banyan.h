/* banyan.h - the command a person types: a table of sub-commands.
 * Always: an unknown sub-command is answered with the list of them and exit status 2.
 * Owner: main.c. */
#ifndef DEPLOY_CLI_BANYAN_H
#define DEPLOY_CLI_BANYAN_H

int banyan_main(int argc, char **argv);

#endif
