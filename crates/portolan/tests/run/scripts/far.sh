# This host, two routers and a far end, each with a network namespace of its own; near.py here, then the same in a space.
#
#   this host ── r1 ── r2 ──┬── far
#                           └── far (1300 bytes)
mount -t tmpfs none /run
for space in r1 r2 far; do ip netns add $space; done
ip netns attach here $$
at() { nsenter --net=/run/netns/$1 -- "${@:2}"; }
link() { # SPACE DEVICE IPv4 IPv6, the same of the other end, MTU
    ip -n $1 link add $2 mtu $9 type veth peer name $6 netns $5 mtu $9
    ip -n $1 addr add $3 dev $2; ip -n $1 addr add $4 dev $2 nodad; ip -n $1 link set $2 up
    ip -n $5 addr add $7 dev $6; ip -n $5 addr add $8 dev $6 nodad; ip -n $5 link set $6 up
}
link here east 198.51.100.1/24 2001:db8:1::1/64 r1 west 198.51.100.2/24 2001:db8:1::2/64 1500
link r1 east 198.51.101.1/24 2001:db8:5::1/64 r2 west 198.51.101.2/24 2001:db8:5::2/64 1500
link r2 wide 203.0.113.1/28 2001:db8:2::1/64 far wide 203.0.113.2/28 2001:db8:2::2/64 1500
link r2 narrow 203.0.113.17/28 2001:db8:3::1/64 far narrow 203.0.113.18/28 2001:db8:3::2/64 1300
ip -n far addr add 203.0.113.3/28 dev wide
ip -n far addr add 2001:db8:2::3/64 dev wide nodad
for space in r1 r2; do
    at $space sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
done
for space in r1 r2 far; do
    at $space sh -c 'echo 0 >/proc/sys/net/ipv4/icmp_ratelimit; echo 0 >/proc/sys/net/ipv6/icmp/ratelimit'
done
ip route add default via 198.51.100.2
ip -6 route add default via 2001:db8:1::2
ip -n r1 route add 203.0.112.0/20 via 198.51.101.2
ip -n r1 -6 route add 2001:db8::/32 via 2001:db8:5::2
ip -n r2 route add 198.51.100.0/24 via 198.51.101.1
ip -n r2 -6 route add 2001:db8:1::/64 via 2001:db8:5::1
ip -n far route add default via 203.0.113.1
ip -n far -6 route add default via 2001:db8:2::1
last=65
for answer in unreachable prohibit blackhole; do
    ip -n r2 route add $answer 203.0.113.$last
    ip -n r2 -6 route add $answer 2001:db8:2::$last
    last=$((last + 1))
done
echo "0 0" >/proc/sys/net/ipv4/ping_group_range
far="203.0.113.2 2001:db8:2::2 203.0.113.18 2001:db8:3::2 203.0.113.3 2001:db8:2::3"
at far python3 far.py $far &
# Neighbours of IPv6 find each other slowly.
await ping -c 1 -W 1 2001:db8:3::2
python3 near.py $far
echo =====
# What this host has learnt of the paths.
ip route flush cache
ip -6 route flush cache
run -- python3 near.py $far
