// From a mapping to its unwind data: the ELF header in memory, its program headers, PT_GNU_EH_FRAME, and the head of .eh_frame_hdr.
// Only mapped bytes are used: section headers are not, so files without them are as good as others.
#ifndef UNSPOOL_MODULE_H
#define UNSPOOL_MODULE_H

#include "sframe.h"

// Program headers looked at: an ELF file has about 13; e_phnum of 0xffff is not followed.
#define PHDRS_MAX 128

#define PT_LOAD 1
#define PT_GNU_EH_FRAME 0x6474e550
#define PT_GNU_SFRAME 0x6474e554

// DW_EH_PE_*: how a pointer is stored (LSB core specification, "DWARF Extensions").
#define PE_OMIT 0xff
#define PE_INDIRECT 0x80
#define PE_PCREL 0x10
#define PE_DATAREL 0x30
#define PE_ALIGNED 0x50
#define PE_SDATA4 0x0b

// A pointer stored with `encoding` at the cursor: the actual address into w->value; 0 or a stop. `data` is the base of DATAREL.
// Inline, because a ninth nested call is refused by the verifier.
ALWAYS_INLINE int take_pointer(struct walk *w, u32 encoding, u64 data) {
    u64 base = 0;
    u32 application = encoding & 0x70;
    if (application == PE_ALIGNED) w->cursor = (w->cursor + 7) & ~7ULL;
    if (application == PE_PCREL)
        base = w->cursor;
    else if (application == PE_DATAREL)
        base = data;
    else if (application != 0 && application != PE_ALIGNED)
        return STOP_BAD_CFI;
    u32 format = encoding & 0x0f;
    u32 size = 8;
    if (format == 0x01 || format == 0x09) {
        int stop = take_leb(w, format == 0x09);
        if (stop) return stop;
    } else {
        if (format == 0x02 || format == 0x0a)
            size = 2;
        else if (format == 0x03 || format == 0x0b)
            size = 4;
        else if (format != 0x00 && format != 0x04 && format != 0x08 && format != 0x0c)
            return STOP_BAD_CFI;
        int stop = take_number(w, size);
        if (stop) return stop;
        if (format == 0x0a) w->value = (u64)(s64)(s16)w->value;
        if (format == 0x0b) w->value = (u64)(s64)(s32)w->value;
    }
    w->value += base;
    if (encoding & PE_INDIRECT) return code_number(w, w->value, 8);
    return 0;
}

// One program header: the load bias from the first PT_LOAD, and where .eh_frame_hdr is.
LOOP_BODY long phdr_body(u64 index, void *context) {
    struct walk *w = ((struct loop *)context)->w;
    struct search *search = &w->search;
    (void)index;
    u64 at = search->at;
    search->at = at + search->size;
    search->stop = code_number(w, at, 4);
    if (search->stop) return 1;
    u32 type = (u32)w->value;
    if (type != PT_LOAD && type != PT_GNU_EH_FRAME && type != PT_GNU_SFRAME) return 0;
    search->stop = code_number(w, at + 8, 8);
    if (search->stop) return 1;
    u64 offset = w->value;
    search->stop = code_number(w, at + 16, 8);
    if (search->stop) return 1;
    u64 vaddr = w->value;
    search->stop = code_number(w, at + 40, 8);
    if (search->stop) return 1;
    u64 memory_size = w->value;
    if (type == PT_GNU_EH_FRAME) {
        w->module.frame_hdr = vaddr;
        search->last = memory_size;
        return 0;
    }
    if (type == PT_GNU_SFRAME) {
        if (memory_size < SFRAME_HEADER || memory_size > 0xffffffff) return 0;
        w->module.sframe = vaddr;
        w->module.sframe_size = (u32)memory_size;
        return 0;
    }
    if (!search->found) w->module.bias = w->module.header - (vaddr - offset);
    search->found = 1;
    if (vaddr + memory_size > w->module.header_end) w->module.header_end = vaddr + memory_size;
    return 0;
}

// The program headers of the ELF header at w->module.header; 0 or a stop. w->search.last gets the size of .eh_frame_hdr.
SHARED int module_headers(struct walk *w) {
    if (!w) return STOP_NO_UNWIND_INFO;
    struct module *module = &w->module;
    struct search *search = &w->search;
    module->bias = module->header_end = module->frame_hdr = 0;
    int stop = code_number(w, module->header, 8);
    if (stop) return is_passing((u32)stop) ? stop : STOP_NO_UNWIND_INFO;
    // "\x7fELF", ELFCLASS64, ELFDATA2LSB, EV_CURRENT (the eighth byte, the OS ABI, is free)
    if ((w->value & 0xffffffffffffffULL) != 0x010102464c457fULL) return STOP_NO_UNWIND_INFO;
    stop = code_number(w, module->header + 32, 8);
    if (stop) return stop;
    search->at = module->header + w->value;
    stop = code_number(w, module->header + 54, 2);
    if (stop) return stop;
    search->size = w->value;
    stop = code_number(w, module->header + 56, 2);
    if (stop) return stop;
    u32 count = (u32)w->value & 0xffff;
    if (search->size < 56) return STOP_NO_UNWIND_INFO;
    search->found = 0;
    search->last = 0;
    search->stop = 0;
    struct loop loop = {.w = w};
    LOOP(count < PHDRS_MAX ? count : PHDRS_MAX, phdr_body, &loop);
    if (search->stop) return search->stop;
    if (!search->found) return STOP_NO_UNWIND_INFO;
    module->header_end += module->bias;
    if (module->sframe) module->sframe += module->bias;
    if (!module->frame_hdr) return STOP_NO_UNWIND_INFO;
    module->frame_hdr += module->bias;
    return 0;
}

// The head of .eh_frame_hdr: where .eh_frame is, and whether the search table can be used (LSB: version 1; everybody writes DATAREL | SDATA4 pairs).
SHARED int module_frame_hdr(struct walk *w) {
    if (!w) return STOP_BAD_CFI;
    u64 size = w->search.last;
    struct module *module = &w->module;
    int stop = code_number(w, module->frame_hdr, 4);
    if (stop) return stop;
    u32 head = (u32)w->value;
    if ((head & 0xff) != 1) return STOP_BAD_CFI;
    w->cursor = module->frame_hdr + 4;
    w->cursor_end = module->frame_hdr + (size < 0x100000000ULL ? size : 0x100000000ULL);
    stop = take_pointer(w, (head >> 8) & 0xff, module->frame_hdr);
    if (stop) return stop;
    module->eh_frame = w->value;
    u32 count_encoding = (head >> 16) & 0xff;
    if (count_encoding == PE_OMIT || (head >> 24) != (PE_DATAREL | PE_SDATA4)) return 0;
    stop = take_pointer(w, count_encoding, module->frame_hdr);
    if (stop) return stop == STOP_BAD_CFI ? 0 : stop;
    // A count that does not fit the section is a broken table; .eh_frame itself may still be good.
    if (w->value == 0 || w->cursor > w->cursor_end || w->value > (w->cursor_end - w->cursor) / 8) return 0;
    module->table = w->cursor;
    module->count = (u32)w->value;
    module->flags |= MODULE_TABLE;
    return 0;
}

// Parses w->module's ELF header; 0, or a stop that may pass. What is final goes to module.stop.
ALWAYS_INLINE int module_parse(struct walk *w) {
    struct module *module = &w->module;
    module->frame_hdr = module->eh_frame = module->table = 0;
    module->sframe = 0;
    module->count = 0;
    module->stop = STOP_NO_UNWIND_INFO;
    module->flags &= ~(u32)(MODULE_PARSED | MODULE_TABLE | MODULE_BAD_SFRAME);
    int stop = module->header ? module_headers(w) : STOP_NO_UNWIND_INFO;
    if (!stop) stop = module_frame_hdr(w);
    // Without PT_GNU_EH_FRAME only the file's section headers say where .eh_frame is.
    else if (stop == STOP_NO_UNWIND_INFO && home_frame_section(w))
        stop = 0;
    if (is_passing((u32)stop)) return stop;
    if (module->sframe) {
        int there = sframe_open(w);
        if (there) return there;
    }
    // Bytes that are not there for good are as bad as wrong ones.
    module->stop = stop == 0 || stop == STOP_NO_UNWIND_INFO ? (u32)stop : STOP_BAD_CFI;
    module->flags |= MODULE_PARSED;
    home_keep_module(w);
    return 0;
}

#endif
