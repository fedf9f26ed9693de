/* The templates that lie beside the project (registered only where they are). */
#include "tests/unit/template_vectors.h"

TEST(every_vector_renders_as_transformers_does) {
    UNUSED_STATE;
    unsigned n_templates, n = check_templates(TEST_SHARED_DATA "/templates", &n_templates);
    assert_true(n_templates >= 15 && n > 500);
}

TESTS(RUN(every_vector_renders_as_transformers_does));
