# A static program in assembly: functions without CFI between functions that have it, with and without frame pointers, no libc.
        .text
        .globl _start
        .type _start, @function
_start:
        .cfi_startproc
        .cfi_undefined rip
        xor %ebp, %ebp
        mov $3, %ebx
1:      call described
        call hidden
        call framed
        dec %ebx
        jnz 1b
        mov $60, %eax
        xor %edi, %edi
        syscall
        .cfi_endproc
        .size _start, .-_start

        .type described, @function
described:
        .cfi_startproc
        sub $24, %rsp
        .cfi_adjust_cfa_offset 24
        call hidden
        call leaf
        add $24, %rsp
        .cfi_adjust_cfa_offset -24
        ret
        .cfi_endproc
        .size described, .-described

        .type hidden, @function
hidden: push %rbx
        sub $16, %rsp
        call leaf
        call framed
        add $16, %rsp
        pop %rbx
        ret
        .size hidden, .-hidden

        .type framed, @function
framed: push %rbp
        mov %rsp, %rbp
        sub $32, %rsp
        call leaf
        leave
        ret
        .size framed, .-framed

        .type leaf, @function
leaf:
        .cfi_startproc
        push %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r12, 0
        xor %r12d, %r12d
        call 2f                 # the classic call to read the pc: a return address that is taken off, never returned to
2:
        .cfi_adjust_cfa_offset 8
        pop %rax
        .cfi_adjust_cfa_offset -8
        pop %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore r12
        ret
        .cfi_endproc
        .size leaf, .-leaf
        .section .note.GNU-stack, "", @progbits
