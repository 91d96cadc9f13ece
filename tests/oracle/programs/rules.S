# Code whose unwind data lies, one function for each rule that catches the lie; static, with .eh_frame_hdr, no libc.
# Every call of a liar goes through `middle`, which an unwinder that believes the lie does not see.
        .text
        .globl _start
        .type _start, @function
_start:
        .cfi_startproc
        .cfi_undefined rip
        xor %ebp, %ebp
        call runs
        call middle_of_last
        mov $60, %eax
        xor %edi, %edi
        syscall
        .cfi_endproc
        .size _start, .-_start

        .type runs, @function
runs:
        .cfi_startproc
        sub $40, %rsp
        .cfi_adjust_cfa_offset 40
        lea (%rsp), %rdi
        mov %rsp, %rax
        mov %rax, 16(%rdi)              # a context, as setcontext keeps one: pc at 8, sp at 16
        lea .Lback(%rip), %rax
        mov %rax, 8(%rdi)
        call middle
.Lback:
        call middle_of_skewed
        call middle_of_low
        call middle_of_end
        add $40, %rsp
        .cfi_adjust_cfa_offset -40
        ret
        .cfi_endproc
        .size runs, .-runs

# R9a: the row says where a jump would go, as setcontext's does; this function does not jump.
        .type middle, @function
middle:
        .cfi_startproc
        sub $8, %rsp
        .cfi_adjust_cfa_offset 8
        mov %rdi, %rdx
        call loads_context
        add $8, %rsp
        .cfi_adjust_cfa_offset -8
        ret
        .cfi_endproc
        .size middle, .-middle

        .type loads_context, @function
loads_context:
        .cfi_startproc
        nop
        .cfi_remember_state
        .cfi_def_cfa rdx, 0
        .cfi_offset rip, 8
        .cfi_offset rsp, 16
        nop
        nop
        nop
        .cfi_restore_state
        ret
        .cfi_endproc
        .size loads_context, .-loads_context

# R4: a pushed code address that the row takes for the return address. Behind it the frame looks like that of `wide`.
        .type middle_of_skewed, @function
middle_of_skewed:
        .cfi_startproc
        call skewed
        ret
        .cfi_endproc
        .size middle_of_skewed, .-middle_of_skewed

        .type skewed, @function
skewed:
        .cfi_startproc
        lea .Linside_wide(%rip), %rax
        push %rax
        nop
        nop
        pop %rax
        ret
        .cfi_endproc
        .size skewed, .-skewed

        .type wide, @function
wide:
        .cfi_startproc
        sub $8, %rsp
        .cfi_adjust_cfa_offset 8
        nop
.Linside_wide:
        nop
        call leaf
.Lafter_leaf:
        add $8, %rsp
        .cfi_adjust_cfa_offset -8
        ret
        .cfi_endproc
        .size wide, .-wide

        .type leaf, @function
leaf:
        .cfi_startproc
        ret
        .cfi_endproc
        .size leaf, .-leaf

# R5: a CFA that is the stack pointer itself; the word below it, in the red zone, is an address in `wide` behind a call.
        .type middle_of_low, @function
middle_of_low:
        .cfi_startproc
        call low
        ret
        .cfi_endproc
        .size middle_of_low, .-middle_of_low

        .type low, @function
low:
        .cfi_startproc
        lea .Lafter_leaf(%rip), %rax
        mov %rax, -8(%rsp)
        .cfi_def_cfa_offset 0
        nop
        nop
        .cfi_def_cfa_offset 8
        ret
        .cfi_endproc
        .size low, .-low

# R6: a row without a return address, in the middle of a program.
        .type middle_of_end, @function
middle_of_end:
        .cfi_startproc
        call end
        ret
        .cfi_endproc
        .size middle_of_end, .-middle_of_end

        .type end, @function
end:
        .cfi_startproc
        nop
        .cfi_remember_state
        .cfi_undefined rip
        nop
        nop
        .cfi_restore_state
        ret
        .cfi_endproc
        .size end, .-end

# R3: the last instruction of `calls_last` is a call that does not return; the address behind it belongs to the next function, whose frame is smaller.
        .type middle_of_last, @function
middle_of_last:
        .cfi_startproc
        mov %rsp, %rbx                  # `leaves` finds its way back here
        call calls_last
        ret
        .cfi_endproc
        .size middle_of_last, .-middle_of_last

        .type calls_last, @function
calls_last:
        .cfi_startproc
        mov 8(%rsp), %rax               # the address in `_start`, kept like any value
        push %rax
        .cfi_adjust_cfa_offset 8
        call leaves
        .cfi_endproc
        .size calls_last, .-calls_last

        .type next, @function
next:
        .cfi_startproc
        nop
        ret
        .cfi_endproc
        .size next, .-next

        .type leaves, @function
leaves:
        .cfi_startproc
        nop
        nop
        lea -8(%rbx), %rsp
        ret
        .cfi_endproc
        .size leaves, .-leaves

        .section .note.GNU-stack, "", @progbits
