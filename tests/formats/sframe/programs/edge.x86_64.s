# Every construct that GAS turns into SFrame V3 on x86-64: flexible rows, register-held values, signal frames, outermost frames.
	.text
	.globl _start
_start:
	.cfi_startproc
	.cfi_undefined %rip
	nop
	mov %rsp, %rbp
	.cfi_endproc
	.globl fp_in_register
	.type fp_in_register, @function
fp_in_register:
	.cfi_startproc
	nop
	nop
	nop
	.cfi_register %rbp, %rdx
	nop
	ret
	.cfi_endproc
	.size fp_in_register, . - fp_in_register
	.globl ra_in_register
	.type ra_in_register, @function
ra_in_register:
	.cfi_startproc
	nop
	.cfi_register %rip, %rcx
	nop
	jmp *%rcx
	.cfi_endproc
	.size ra_in_register, . - ra_in_register
	.globl ra_elsewhere
	.type ra_elsewhere, @function
ra_elsewhere:
	.cfi_startproc
	nop
	nop
	nop
	.cfi_def_cfa_offset 16
	.cfi_offset %rip, -16
	nop
	ret
	.cfi_endproc
	.size ra_elsewhere, . - ra_elsewhere
	.globl wide
	.type wide, @function
wide:
	.cfi_startproc
	sub $0x12340, %rsp
	.cfi_adjust_cfa_offset 0x12340
	nop
	.fill 700, 1, 0x90
	add $0x12340, %rsp
	.cfi_adjust_cfa_offset -0x12340
	ret
	.cfi_endproc
	.size wide, . - wide
	.globl trampoline
	.type trampoline, @function
trampoline:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_def_cfa %rsp, 8
	nop
	nop
	.cfi_endproc
	.size trampoline, . - trampoline
	.globl restore_rt
	.type restore_rt, @function
restore_rt:
	.cfi_startproc simple
	.cfi_signal_frame
	.cfi_escape 0x0f, 0x04, 0x77, 0xa0, 0x01, 0x06
	nop
	mov $15, %rax
	syscall
	.cfi_endproc
	.size restore_rt, . - restore_rt
	.section .note.GNU-stack,"",@progbits
