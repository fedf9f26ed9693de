/* list.h - intrusive doubly linked list.
 *
 *     head <-> node <-> node <-> (back to head)       an element embeds struct by_list; BY_CONTAINER_OF finds it
 *
 * Always: next->prev == self and prev->next == self, for the head and every node; a node out of any list is zero.
 * Owner: the one who owns the head; the list allocates nothing. */
#ifndef COMMON_BASE_LIST_H
#define COMMON_BASE_LIST_H

#include "common/base/check.h"

struct by_list {
    struct by_list *prev, *next;
};

static inline void by_list_init(struct by_list *head) {
    head->prev = head->next = head;
}
static inline bool by_list_empty(const struct by_list *head) {
    return head->next == head;
}
static inline bool by_list_linked(const struct by_list *node) {
    return node->next != NULL;
}
static inline void by_list_insert_after(struct by_list *at, struct by_list *node) {
    by_assert(!by_list_linked(node));
    node->prev = at;
    node->next = at->next;
    at->next->prev = node;
    at->next = node;
}
static inline void by_list_push(struct by_list *head, struct by_list *node) { /* at the end */
    by_list_insert_after(head->prev, node);
}
static inline void by_list_remove(struct by_list *node) {
    by_assert(by_list_linked(node));
    by_assert(node->next->prev == node && node->prev->next == node);
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->prev = node->next = NULL;
}
static inline struct by_list *by_list_first(const struct by_list *head) { /* NULL when empty */
    return by_list_empty(head) ? NULL : head->next;
}

/* for (BY_LIST_EACH(it, head)) …  the current node must not be removed; BY_LIST_EACH_SAFE allows that */
#define BY_LIST_EACH(it, head) \
    struct by_list *it = (head)->next; \
    it != (head); \
    it = it->next
#define BY_LIST_EACH_SAFE(it, nx, head) \
    struct by_list *it = (head)->next, *nx = it->next; \
    it != (head); \
    it = nx, nx = it->next

#endif
