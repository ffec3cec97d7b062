# Reads facts and writes nothing. Words between at signs are filled in; comments are removed before it is sent.
# Every marker begins with the nonce ($1). Builtins only where they suffice: a target may lack everything else.
N=$1
M=@BYTES@
LC_ALL=C
export LC_ALL
unset IFS
PATH="$PATH:/usr/sbin:/usr/bin:/sbin:/bin"
export PATH
has() { command -v "$1" >/dev/null 2>&1; }
say() { printf '%s %s\n' "$N" "$*"; }
line() { printf '\n%s %s\n' "$N" "$*"; }

# Whether the nearest folder above a path that exists can't be entered, so that nobody knows what is below.
hidden() {
  d=$1
  while :; do
    d=${d%/*}
    [ -n "$d" ] || d=/
    if [ "$d" = / ] || [ -e "$d" ]; then break; fi
  done
  [ ! -x "$d" ]
}
# A FIFO, a device or a folder where a file should be is never opened.
state() {
  if [ -f "$1" ]; then
    if [ -r "$1" ]; then S=ok; else S=denied; fi
  elif [ -e "$1" ] || [ -L "$1" ]; then S=special
  elif hidden "$1"; then S=denied
  else S=absent; fi
}
if has head; then
  slurp() { head -c $((M + 1)) <"$1"; }
else
  slurp() {
    i=0
    while IFS= read -r l || [ -n "$l" ]; do
      i=$((i + 1))
      [ $i -gt 100000 ] && return 9
      printf '%s\n' "$l"
    done <"$1"
  }
fi
# One file, whole.
get() {
  state "$1"
  say "< $S $1"
  r=0
  if [ $S = ok ]; then slurp "$1" || r=$?; fi
  line "> $r"
}
# Text of many files by one program, each line after its path: to start a program costs more than to read a file.
if has head && has grep && grep -aq . /proc/self/status 2>/dev/null; then
  batch() {
    for p; do say "m $p"; done
    say '< many'
    # The status comes last, so that it is missing where anything before it is.
    {
      grep -as '' "$@" /dev/null
      printf '=%s\n' $?
    } | head -c $((4 * M))
    line "> $?"
  }
else
  batch() { for p; do get "$p"; done; }
fi
# Many files, whole.
many() {
  B=
  for p; do
    state "$p"
    case $S$p in
    ok*:*) get "$p" ;;
    ok*) B="$B $p" ;;
    *) say "< $S $p" && line '> 0' ;;
    esac
  done
  # No path that comes here has a blank.
  [ -z "$B" ] || batch $B
}
# Which of these are too large goes to $Z. One program says all sizes, and opens regular files alone.
large() {
  Z=' ' B=
  for p; do
    state "$p"
    # No path that comes here has a blank.
    [ $S = ok ] && B="$B $p"
  done
  [ -n "$B" ] && has wc || return 0
  z=
  for p in $(wc -c $B 2>/dev/null); do
    case $p in
    /*) [ "${z:-0}" -gt $M ] && Z="$Z$p " ;;
    *) z=$p ;;
    esac
  done
}
# One file, through a function that masks it line by line. Bytes of those that are too large are not read: $Z says which.
masked() {
  state "$1"
  case $S$Z in
  ok*" $1 "*) S=big ;;
  esac
  say "< $S $1"
  r=0
  if [ $S = ok ]; then $2 <"$1" || r=$?; fi
  line "> $r"
}
# Of a password only its state and its method may leave the target.
mask() {
  case $1 in
  '' | x) m=$1 ;;
  '!'* | '*'*) m='!' ;;
  '$y$'*) m='$y$' ;;
  '$gy$'*) m='$gy$' ;;
  '$7$'*) m='$7$' ;;
  '$2'[abxy]'$'*) m='$2b$' ;;
  '$6$'*) m='$6$' ;;
  '$5$'*) m='$5$' ;;
  '$1$'*) m='$1$' ;;
  '$3$'*) m='$3$' ;;
  '$md5'*) m='$md5' ;;
  '$sha1'*) m='$sha1' ;;
  '_'*) m='_' ;;
  '$'* | ??????????????*) m='$?' ;;
  ?????????????) m='.............' ;;
  *) m='!' ;;
  esac
}
mpasswd() {
  while IFS=: read -r a p u g c h s || [ -n "$a" ]; do
    mask "$p"
    printf '%s:%s:%s:%s::%s:%s\n' "$a" "$m" "$u" "$g" "$h" "$s"
  done
}
mgroup() {
  while IFS=: read -r a p g u || [ -n "$a" ]; do printf '%s:x:%s:%s\n' "$a" "$g" "$u"; done
}
mshadow() {
  while IFS=: read -r a p c n x w i e f || [ -n "$a" ]; do
    mask "$p"
    printf '%s:%s:%s:%s:%s:%s:%s::\n' "$a" "$m" "$c" "$n" "$x" "$w" "$i"
  done
}
# Patterns that could not be expanded because their folder can't be listed.
unlisted() {
  case $1 in
  *'*'*)
    d=${1%/*}
    if hidden "$d"; then return 0; fi
    [ -d "$d" ] && [ ! -r "$d" ]
    ;;
  *) return 1 ;;
  esac
}

rest() {
me=
{ while read -r k v w x; do [ "$k" = Uid: ] && me=$w; done </proc/self/status; } 2>/dev/null
say "id $$ $me"
large /etc/passwd /etc/group /etc/shadow
masked /etc/passwd mpasswd
masked /etc/group mgroup
masked /etc/shadow mshadow
many /etc/os-release /usr/lib/os-release /proc/self/mountinfo /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6

say '[ processes'
for d in /proc/[0-9]*; do
  q=${d#/proc/}
  [ "$q" = $$ ] && continue
  [ -e "$d/status" ] || continue
  say "p $q"
  { while IFS= read -r l; do
    case $l in
    Name:* | State:* | PPid:* | Uid:* | Gid:* | VmSize:* | CapEff:* | Seccomp:* | NoNewPrivs:* | Kthread:*) printf '%s\n' "$l" ;;
    esac
  done <"$d/status"; } 2>/dev/null
done
say '] processes'

# Each in one read: a builtin that reads byte by byte gets only the first digit of a number in /proc/sys.
say '[ sysctls'
set --
for p in @SYSCTLS@; do
  [ -r "/proc/sys/$p" ] && set -- "$@" "/proc/sys/$p"
done
if has head; then
  [ $# -eq 0 ] || batch "$@"
  say '] sysctls 0'
elif has cat; then
  for p; do v=$(cat "$p" 2>/dev/null) && say "s ${p#/proc/sys/} $v"; done
  say '] sysctls 0'
else say '] sysctls tool'; fi

say '[ configs'
set --
for p in @CONFIGS@; do
  if unlisted "$p"; then
    say "u ${p%/*}"
    continue
  fi
  case $p in
  *'*'*) [ -e "$p" ] || [ -L "$p" ] || continue ;;
  esac
  case $p in
  *[!A-Za-z0-9._/@:+~,=-]*)
    [ -d "$p" ] || say "u ${p%/*}"
    continue
    ;;
  esac
  if [ -d "$p" ]; then continue; fi
  set -- "$@" "$p"
done
many "$@"
say '] configs'

files() {
  for k in n e l d; do
    set --
    for p in @FILES@; do
      if [ -L "$p" ]; then
        if [ -e "$p" ]; then t=l; else t=d; fi
      elif [ -e "$p" ]; then t=e
      else t=n; fi
      [ $t = $k ] || continue
      if [ $k != n ]; then set -- "$@" "$p"
      elif unlisted "$p"; then say "u ${p%/*}"
      elif hidden "$p"; then say "u $p"; fi
    done
    [ $# -eq 0 ] && continue
    case $k in
    l) stat -L -c "$N l %f %u %g %n" "$@" 2>/dev/null || return 1 ;;
    *) stat -c "$N $k %f %u %g %n" "$@" 2>/dev/null || return 1 ;;
    esac
  done
}
say '[ files'
files
r=$?
if [ $r -ne 0 ] && ! stat -c %f / >/dev/null 2>&1; then r=tool; fi
say "] files $r"

say '[ packages'
dpkg() {
  state "$1"
  say "< $S $1"
  r=0
  if [ $S = ok ]; then
    if has grep && has head; then
      # A grep that dies must not look like a short database: the parser refuses a line that is no field.
      {
        grep -E '^(Package|Status|Version|Architecture):|^$|^[^ 	][^:]*$' <"$1"
        [ $? -le 1 ] || echo failed
      } | head -c $((M + 1)) || r=$?
    else slurp "$1" || r=$?; fi
  fi
  line "> $r"
}
dpkg /var/lib/dpkg/status
if [ -d /var/lib/dpkg/status.d ]; then
  if [ -r /var/lib/dpkg/status.d ] && [ -x /var/lib/dpkg/status.d ]; then
    for p in /var/lib/dpkg/status.d/*; do
      case $p in
      *.md5sums | *'*') ;;
      *[!A-Za-z0-9._/@:+~,=-]*) say '< special /var/lib/dpkg/status.d' && line '> 0' ;;
      *) get "$p" ;;
      esac
    done
  else say '< denied /var/lib/dpkg/status.d' && line '> 0'; fi
fi
for p in /lib/apk/db/installed /usr/lib/apk/db/installed; do
  # With /lib a link to /usr/lib both are the same file.
  [ "$p" = /usr/lib/apk/db/installed ] && [ -L /lib ] && continue
  get $p
done
if [ -e /var/lib/rpm ] || [ -e /usr/lib/sysimage/rpm ]; then
  if has rpm && has head; then
    say '< ok rpm'
    { rpm -qa --qf '%{NAME}\t%{EVR}\t%{ARCH}\n' 2>/dev/null </dev/null || echo failed; } | head -c $((M + 1))
    line "> $?"
  else say '< absent rpm' && line '> 0'; fi
fi
say '] packages'
}

# Words for find that leave the files of known owners out; nothing when a list is absent.
ids() {
  W="! $2 0"
  i=0
  [ -f "$1" ] && [ -r "$1" ] || return 0
  while IFS=: read -r a p u g c || [ -n "$a" ]; do
    case $u in
    0 | '' | *[!0-9]*) continue ;;
    esac
    i=$((i + 1))
    [ $i -gt 5000 ] && return 1
    W="$W ! $2 $u"
  done <"$1"
}
special() {
  UF=-uid GF=-gid V=1
  # All at once where find is GNU's, and one by one elsewhere.
  if ! [ "$(find / -prune -uid 0 -readable -executable -printf x -exec stat -c %F {} + 2>/dev/null)" = xdirectory ]; then
    V=
    stat -c %f / >/dev/null 2>&1 && has find || { say '] special tool'; return; }
    [ "$(find / -prune -exec stat -c %F {} + 2>/dev/null)" = directory ] || { say '] special tool'; return; }
    find / -prune -uid 0 >/dev/null 2>&1 || UF=-user GF=-group
  fi
  ids /etc/passwd $UF || { say '] special big'; return; }
  U=$W
  ids /etc/group $GF || { say '] special big'; return; }
  G=$W
  # -xdev stays on the root's device; what is mounted from that same device is left out by its path.
  R=
  X=
  { while read -r a b e f p c; do [ "$p" = / ] && R=$e; done </proc/self/mountinfo
    while read -r a b e f p c; do
      case $p in
      / | /proc | /proc/* | /sys | /sys/* | /dev | /dev/* | *[!A-Za-z0-9._/@:+~,=-]*) continue ;;
      esac
      [ "$e" = "$R" ] && X="$X -o -path $p"
    done </proc/self/mountinfo; } 2>/dev/null
  # Folders that can't be looked into are told of, and so is what is special about them.
  if [ $V ]; then set -- -readable -executable -o -type d -printf "$N d %p\n"
  else set -- -exec sh -c 'for d; do [ -r "$d" ] && [ -x "$d" ] || printf "%s d %s\n" "$0" "$d"; done' "$N" {} +; fi
  { find / -xdev \( -path /proc -o -path /sys -o -path /dev $X \) -prune -o \
    \( ! -type d -o "$@" \) ! -type l \
    \( -perm -4000 -o -perm -2000 -o -perm -2 -o \( $U \) -o \( $G \) \) \
    -exec stat -c "$N f %f %u %g %n" {} + 2>&1 1>&3
    printf '%s rc %s\n' "$N" $?; } | {
    rc= bad=0
    while IFS= read -r l; do
      case $l in
      "$N rc "*) rc=${l#"$N rc "} ;;
      # Files come and go while it runs. find ends every complaint with its reason, so that a name can't pass for one.
      *': No such file or directory') ;;
      *) bad=1 ;;
      esac
    done
    say "] special $rc $bad"
  }
}
# The search goes on beside everything else, as far as the pipe holds what it finds.
all() {
  {
    exec 3>&1
    say '[ special'
    special
  } | {
    rest
    if has cat; then cat
    else while IFS= read -r l; do printf '%s\n' "$l"; done; fi
  }
  say .
}
# Each write is a message through the API server: few large ones cost less than many small ones.
if has head; then all | head -c @TOTAL@
else all; fi
