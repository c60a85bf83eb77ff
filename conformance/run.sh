#!/bin/bash
# Runs packetdrill's TCP scripts against the stack: conformance/run.sh CHECKOUT [ipv4|ipv6|ipv4-mapped-ipv6] [REGEX]
# CHECKOUT is one of google/packetdrill; nothing is fetched, and nothing in it is changed. Needs root (or a user namespace with
# `unshare -rn`), gcc, make, bison and flex. Prints a line for each script that does not pass, and how many did.
set -eu
[ $# -ge 1 ] || { sed -n 2,4p "$0"; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
src=$(realpath "$1") ip=${2:-ipv4} only=${3:-.}
work=${WORK:-${TMPDIR:-/tmp}/portolan-conformance}
mkdir -p "$work/bin" "$work/ctl"
pd=$work/gtests/net/packetdrill
[ -d "$work/gtests" ] || cp -r "$src/gtests" "$work/"
[ -x "$pd/packetdrill" ] || (cd "$pd" && ./configure && make packetdrill) >"$work/build.log" 2>&1
(cd "$here" && cargo build -q -p portolan-packetdrill)
so=${CARGO_TARGET_DIR:-$here/target}/debug/libportolan_packetdrill.so

# Commands of the scripts are noted for the object instead of being run on this machine.
for command in ip tc ethtool ifconfig nstat; do
  printf '#!/bin/sh\necho "%s $*" >>"$PD_CTL"\n' "$command" >"$work/bin/$command"
done
printf '#!/bin/sh\nfor a; do case $a in -*) ;; *) printf "sysctl %%s\\n" "$a" >>"$PD_CTL";; esac; done\n' >"$work/bin/sysctl"
cat >"$work/bin/set_sysctls" <<'S'
#!/bin/sh
for a; do p=${a%%=*}; printf 'sysctl %s=%s\n' "$(echo "${p#/proc/sys/}" | tr / .)" "${a#*=}" >>"$PD_CTL"; done
f=/tmp/sysctl_restore_$PACKETDRILL_PID.sh; printf '#!/bin/sh\nrm -f "$0"\n' >"$f"; chmod +x "$f"
S
chmod +x "$work"/bin/*
find "$work/gtests" -name set_sysctls.py -exec cp "$work/bin/set_sysctls" {} \;
# Code blocks of scripts call libc's getsockopt, which is led to the object.
gcc -O1 -shared -fPIC -I"$pd" -o "$work/preload.so" "$here/conformance/preload.c" -ldl

v4='--local_ip=192.168.0.1 --gateway_ip=192.168.0.1 --netmask_ip=255.255.0.0 --remote_ip=192.0.2.1 -DCODE=host_unreachable'
case $ip in
  ipv6) flags=local=fd3d:0a0b:17d6::1,mtu=1520
    args='--mtu=1520 --local_ip=fd3d:0a0b:17d6::1 --gateway_ip=fd3d:0a0b:17d6:8888::1 --remote_ip=fd3d:fa7b:d17d::1 -DCODE=address_unreachable' ;;
  *) flags=local=192.168.0.1,mtu=1500 args=$v4 ;;
esac
passed=0 failed=0
cd "$work/gtests/net/tcp"
for script in $(find . -name '*.pkt' | sed 's|^\./||' | grep -E "$only" | sort); do
  PD_CTL=$work/ctl/$(echo "$script" | tr / _); : >"$PD_CTL"; export PD_CTL
  if message=$(cd "$(dirname "$script")" && PD_REAL_SO=$so PATH=$work/bin:$PATH timeout 20 unshare -n env LD_PRELOAD="$work/preload.so" \
    "$pd/packetdrill" --ip_version="$ip" $args --send_omit_free --so_filename="$work/preload.so" \
    --so_flags="$flags,ctl=$PD_CTL" "$(basename "$script")" 2>&1); then
    passed=$((passed + 1))
  else
    failed=$((failed + 1)); echo "$script: $(echo "$message" | grep -v '^$' | tail -1)"
  fi
done
echo "passed=$passed failed=$failed"
