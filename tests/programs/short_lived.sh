# Starts N rounds (first argument) of four programs that live some milliseconds each.
for _ in $(seq "$1"); do
  /bin/true
  /bin/ls / >/dev/null
  perl -e 'my $x = 0; $x += $_ for 1 .. 20000' >/dev/null
  grep -c . /etc/services >/dev/null
done
