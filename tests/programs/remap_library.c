// Code without relocations, to be mapped by hand: calls back from below a frame of a size that -DPAD=N gives (below 104, so that only one byte of code
// differs). Build with -O2 -shared -fPIC -nostdlib -Wl,-e,work -fno-stack-protector -fomit-frame-pointer.
int work(int (*callback)(void)) {
  volatile char pad[PAD];
  pad[0] = 1;
  return callback() + pad[0];
}
