# 32-bit code without a C library: says "ready" and waits for ever. Build with -m32 -nostdlib -static.
	.globl _start
	.text
_start:
	mov	$4, %eax	# write(1, text, 6)
	mov	$1, %ebx
	mov	$text, %ecx
	mov	$6, %edx
	int	$0x80
1:	mov	$29, %eax	# pause()
	int	$0x80
	jmp	1b
	.section .rodata
text:	.ascii	"ready\n"
	.section .note.GNU-stack,"",@progbits
