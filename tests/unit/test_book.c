#include "scheduler/book.h"

#include "scheduler/req.h"
#include "tests/unit/test.h"

struct fixture {
    struct pool pool;
    struct book book;
};

static struct req *open_req(struct fixture *f, uint64_t epoch, uint64_t rid) {
    uint32_t id = 5;
    struct msg_tokenized m = {
        .name = {epoch, rid}, .ids = {&id, 1}, .sampling = {.n = 1, .logprob_start = -1}};
    struct req *req = req_new(&f->pool, &m);
    book_add(book_life_open(&f->book, epoch), req);
    return req;
}

static enum book_state find(struct fixture *f, uint64_t epoch, uint64_t rid) {
    struct msg_name name = {epoch, rid};
    struct req *req;
    enum book_state state = book_find(&f->book, &name, &req);
    assert_int_equal(state == BOOK_LIVE, req != NULL);
    assert_true(book_check(&f->book));
    return state;
}

static void setup(struct fixture *f) {
    pool_init(&f->pool);
    book_init(&f->book);
}

static void teardown(struct fixture *f) {
    book_release(&f->book);
    pool_release(&f->pool);
}

/* Two routers, one id. Within one router it may come back at once: the router knows first that its request is over. */
TEST(an_id_is_taken_by_another_routers_live_request) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f);
    struct by_str id = BY_STR("key\nmine");
    struct msg_name here = {1, 8}, there = {2, 1};
    struct req *req = open_req(&f, 1, 7), *again = open_req(&f, 1, 8);
    req->routing.client_id = again->routing.client_id = id;
    assert_false(book_is_taken(&f.book, &there, id));
    book_claim(&f.book, req);
    assert_true(book_is_taken(&f.book, &there, id));
    assert_false(book_is_taken(&f.book, &here, id));
    assert_false(book_is_taken(&f.book, &there, BY_STR("key\nmin")));
    assert_false(book_is_taken(&f.book, &there, BY_STR("")));
    book_claim(&f.book, again);
    book_unclaim(&f.book, req); /* the later one has it now */
    assert_true(book_is_taken(&f.book, &there, id));
    again->n_open = 0; /* its last token is out: no more than its log lives */
    assert_false(book_is_taken(&f.book, &there, id));
    book_unclaim(&f.book, again);
    assert_false(book_is_taken(&f.book, &there, id));
    req->n_open = again->n_open = 0;
    book_forget(req);
    book_forget(again);
    req_free(req, &f.pool);
    req_free(again, &f.pool);
    teardown(&f);
}

TEST(a_name_is_new_then_live_then_over_then_forgotten) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f);
    assert_int_equal(find(&f, 1, 7), BOOK_NEW);
    struct req *req = open_req(&f, 1, 7);
    assert_int_equal(find(&f, 1, 7), BOOK_LIVE);
    assert_int_equal(find(&f, 2, 7), BOOK_NEW); /* another router's 7 */
    struct life *life = req->life;
    book_forget(req);
    assert_int_equal(find(&f, 1, 7), BOOK_NEW);
    book_bury(&f.book, life, 7, 1000, 0);
    assert_int_equal(find(&f, 1, 7), BOOK_OVER);
    book_expire(&f.book, 999);
    assert_int_equal(find(&f, 1, 7), BOOK_OVER);
    book_expire(&f.book, 1000);
    assert_int_equal(find(&f, 1, 7), BOOK_FORGOTTEN);
    assert_int_equal(find(&f, 1, 6), BOOK_FORGOTTEN); /* below the low water */
    assert_int_equal(find(&f, 1, 8), BOOK_NEW);
    req_free(req, &f.pool);
    teardown(&f);
}

TEST(a_live_name_below_the_low_water_stays_live) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f);
    struct req *slow = open_req(&f, 1, 3);
    book_bury(&f.book, slow->life, 9, 10, 0);
    book_expire(&f.book, 10);
    assert_int_equal(find(&f, 1, 3), BOOK_LIVE);
    assert_int_equal(find(&f, 1, 4), BOOK_FORGOTTEN);
    book_forget(slow);
    req_free(slow, &f.pool);
    teardown(&f);
}

TEST(the_names_of_an_ended_epoch_are_over_until_it_comes_back) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f);
    book_life_end(&f.book, book_life_open(&f.book, 5));
    assert_int_equal(find(&f, 5, 1), BOOK_OVER);
    book_life_open(&f.book, 5);
    assert_int_equal(find(&f, 5, 1), BOOK_NEW);
    teardown(&f);
}

TEST(tombstones_hold_a_million_and_the_oldest_goes) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f);
    struct life *life = book_life_open(&f.book, 1);
    for (uint64_t rid = 1; rid <= 1000001; rid++)
        book_bury(&f.book, life, rid, 1000, 0);
    struct msg_name first = {1, 1}, second = {1, 2};
    struct req *req;
    assert_int_equal(book_find(&f.book, &first, &req), BOOK_FORGOTTEN);
    assert_int_equal(book_find(&f.book, &second, &req), BOOK_OVER);
    teardown(&f);
}

/* 1,000 requests a second for ten minutes took 57 MB, for the rest of the scheduler's life. */
TEST(what_a_storm_took_is_given_back) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f);
    struct life *life = book_life_open(&f.book, 1);
    for (uint64_t rid = 1; rid <= 100000; rid++)
        book_bury(&f.book, life, rid, rid, 0);
    assert_true(f.book.tombs_cap >= 100000 && life->names.cap >= 100000);
    book_expire(&f.book, 99990);
    assert_true(f.book.tombs_cap <= 1024 && life->names.cap <= 1024);
    assert_int_equal(find(&f, 1, 99990), BOOK_FORGOTTEN);
    assert_int_equal(find(&f, 1, 99991), BOOK_OVER);
    for (uint64_t rid = 100001; rid <= 110000; rid++)
        book_bury(&f.book, life, rid, rid, 0);
    assert_int_equal(find(&f, 1, 99991), BOOK_OVER);
    book_expire(&f.book, 110000);
    assert_int_equal(f.book.n_tombs, 0);
    assert_true(book_check(&f.book));
    teardown(&f);
}

TESTS(RUN(an_id_is_taken_by_another_routers_live_request),
      RUN(a_name_is_new_then_live_then_over_then_forgotten),
      RUN(a_live_name_below_the_low_water_stays_live),
      RUN(the_names_of_an_ended_epoch_are_over_until_it_comes_back),
      RUN(tombstones_hold_a_million_and_the_oldest_goes), RUN(what_a_storm_took_is_given_back));
