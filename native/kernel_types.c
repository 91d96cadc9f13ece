// Copies the structures that the programs name out of the kernel's BTF. kernel_types.h says why.
#include "kernel_types.h"

#include <stdlib.h>
#include <string.h>

#include "types.h"

// Structures in structures at most: the kernel has a dozen.
#define DEPTH_MAX 64

struct copying {
    const struct btf *from;
    struct btf *to;
    int *copies;  // by the type's number in `from`: its number in `to`, 0 when there is none yet
    int pointer;  // the one pointer of `to`
};

static int copy_type(struct copying *copying, u32 id, u32 depth);

static int copy_array(struct copying *copying, const struct btf_type *type, u32 depth) {
    const struct btf_array *array = btf_array(type);
    int element = copy_type(copying, array->type, depth + 1);
    int index = element < 0 ? element : copy_type(copying, array->index_type, depth + 1);
    return index < 0 ? index : btf__add_array(copying->to, index, element, array->nelems);
}

// A member's type comes before its structure, whose members are added in one go.
static int copy_structure(struct copying *copying, const struct btf_type *type, u32 depth) {
    const char *name = btf__name_by_offset(copying->from, type->name_off);
    const struct btf_member *members = btf_members(type);
    int error = 0;
    for (u32 i = 0; error >= 0 && i < btf_vlen(type); i++)
        error = copy_type(copying, members[i].type, depth + 1);
    if (error < 0)
        return error;
    int id = btf_is_union(type) ? btf__add_union(copying->to, name, type->size) : btf__add_struct(copying->to, name, type->size);
    for (u32 i = 0; id >= 0 && i < btf_vlen(type); i++) {
        const char *member = btf__name_by_offset(copying->from, members[i].name_off);
        int its_type = copy_type(copying, members[i].type, depth + 1);
        error = btf__add_field(copying->to, member, its_type, btf_member_bit_offset(type, i), btf_member_bitfield_size(type, i));
        if (error < 0)
            return error;
    }
    return id;
}

static int copy_new(struct copying *copying, const struct btf_type *type, u32 depth) {
    const char *name = btf__name_by_offset(copying->from, type->name_off);
    switch (btf_kind(type)) {
    case BTF_KIND_INT:
        return btf__add_int(copying->to, name, type->size, btf_int_encoding(type));
    case BTF_KIND_FLOAT:
        return btf__add_float(copying->to, name, type->size);
    case BTF_KIND_ENUM:
    case BTF_KIND_ENUM64:
        return btf__add_enum(copying->to, name, type->size);
    case BTF_KIND_ARRAY:
        return copy_array(copying, type, depth);
    case BTF_KIND_STRUCT:
    case BTF_KIND_UNION:
        return copy_structure(copying, type, depth);
    default:
        return -1;
    }
}

// The number of the type's copy, without names for it and without qualifiers; negative for one that cannot be copied.
static int copy_type(struct copying *copying, u32 id, u32 depth) {
    const struct btf_type *type = btf__type_by_id(copying->from, id);
    while (type && (btf_is_mod(type) || btf_is_typedef(type) || btf_is_type_tag(type))) {
        id = type->type;
        type = btf__type_by_id(copying->from, id);
    }
    if (!type || depth > DEPTH_MAX)
        return -1;
    if (btf_is_ptr(type))
        return copying->pointer;
    if (!copying->copies[id])
        copying->copies[id] = copy_new(copying, type, depth);
    return copying->copies[id];
}

static int is_structure(const struct btf_type *type) {
    return btf_is_struct(type) || btf_is_union(type);
}

// The length of a name without its flavour: what follows ___ tells structures of different kernels apart (libbpf, CO-RE).
static size_t essential(const char *name) {
    const char *flavour = strstr(name, "___");
    return flavour && flavour != name ? (size_t)(flavour - name) : strlen(name);
}

// Names of the program's structures, without their flavours.
struct names {
    u32 number;
    struct name {
        const char *text;
        size_t size;
    } name[];
};

static struct names *names_of(const struct btf *program) {
    u32 types = btf__type_cnt(program);
    struct names *names = malloc(sizeof(*names) + types * sizeof(struct name));
    if (names)
        names->number = 0;
    for (u32 id = 1; names && id < types; id++) {
        const struct btf_type *type = btf__type_by_id(program, id);
        const char *text = btf__name_by_offset(program, type->name_off);
        if (is_structure(type) && *text)
            names->name[names->number++] = (struct name){text, essential(text)};
    }
    return names;
}

static int is_named(const struct names *names, const char *text) {
    for (u32 i = 0; i < names->number; i++) {
        const struct name *name = &names->name[i];
        if (name->text[0] == text[0] && !strncmp(name->text, text, name->size) && !text[name->size])
            return 1;
    }
    return 0;
}

static int copy_named(struct copying *copying, const struct names *names) {
    u32 types = btf__type_cnt(copying->from);
    for (u32 id = 1; id < types; id++) {
        const struct btf_type *type = btf__type_by_id(copying->from, id);
        if (is_structure(type) && is_named(names, btf__name_by_offset(copying->from, type->name_off)) && copy_type(copying, id, 0) < 0)
            return -1;
    }
    return 0;
}

struct btf *kernel_types_named(const struct btf *kernel, const struct btf *program) {
    struct copying copying = {.from = kernel, .to = btf__new_empty(), .copies = calloc(btf__type_cnt(kernel), sizeof(int))};
    struct names *names = names_of(program);
    copying.pointer = copying.to ? btf__add_ptr(copying.to, 0) : -1;
    int error = copying.pointer < 0 || !copying.copies || !names ? -1 : copy_named(&copying, names);
    free(names);
    free(copying.copies);
    if (!error)
        return copying.to;
    btf__free(copying.to);
    return NULL;
}
