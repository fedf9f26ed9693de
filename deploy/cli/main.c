#include "deploy/cli/banyan.h"

int main(int argc, char **argv) {
    return banyan_main(argc, argv);
}
