# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the two guests share: Debian's kernel 6.1, downloaded once into $O/vm and never installed, and
# the emulated machine (no KVM needed) that it boots in. Sourced in the top folder; the includer
# says how it ends: skip() and bail().

out=${O:-.output}
cache=$out/vm
export PATH=$PATH:/usr/sbin:/sbin
tmp=

cleanup() {
	[ -z "$tmp" ] || rm -rf "$tmp"
}

need() {
	local tool

	[ "$(uname -m)" = x86_64 ] || skip "the guest kernel is for x86_64 only"
	for tool in "$@"; do
		command -v "$tool" >/dev/null || skip "no $tool here"
	done
}

kernel_package() {
	apt-cache depends "$1" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-6\.1\.[^ ]*\)$/\1/p'
}

# The package -> $cache/$package/{vmlinuz,modules/VERSION}, at once or not at all.
download_kernel() {
	local dir=$tmp/deb kernel=$tmp/kernel

	mkdir -p "$dir" "$kernel/modules"
	(cd "$dir" && apt-get -q -o APT::Sandbox::User=root download "$package") >"$tmp/apt.log" 2>&1 ||
		return 1
	dpkg-deb -x "$dir"/*.deb "$dir/root"
	cp "$dir"/root/boot/vmlinuz-* "$kernel/vmlinuz"
	mv "$dir"/root/lib/modules/* "$kernel/modules/"
	rm -rf "$dir" "${cache:?}/$package"
	mkdir -p "$cache"
	mv "$kernel" "$cache/$package"
}

# Sets $package, and sees to it that it is there.
get_kernel() {
	local meta

	meta=$(awk '$1 == "fetch" { print $2 }' tools/build/packages)
	package=$(kernel_package "$meta")
	[ -n "$package" ] ||
		package=$(find "$cache" -maxdepth 1 -name 'linux-image-6.1.*' -printf '%f' 2>/dev/null || :)
	[ -n "$package" ] || skip "no Debian package of a 6.1 kernel is known here"
	if ! [ -d "$cache/$package/modules" ] && ! download_kernel; then
		# the lists of yesterday may name what the mirror has no more
		apt-get -q update >/dev/null 2>&1 || :
		package=$(kernel_package "$meta")
		download_kernel || skip "kernel package not downloaded: $(tail -n 1 "$tmp/apt.log")"
	fi
}

# The modules "$@", in this order, into $root/modules for an init that has no modprobe.
add_modules() {
	local n=10 m

	mkdir -p "$root/modules"
	for m in "$@"; do
		n=$((n + 1))
		find "$cache/$package/modules" -name "$m.ko" -exec cp {} "$root/modules/$n-$m.ko" \;
	done
}

make_initramfs() {
	(cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$tmp/initramfs"
}

# machine SECONDS APPEND QEMU-OPTION...
machine() {
	local seconds=$1 append=$2

	shift 2
	timeout -k 5 "$seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -no-reboot \
		-display none -monitor none -net none -kernel "$cache/$package/vmlinuz" \
		-initrd "$tmp/initramfs" \
		-append "console=ttyS0 quiet loglevel=1 panic=-1 oops=panic $append" "$@" </dev/null 2>&1
}

# A crash tells its cause long before its last line.
show_console() {
	{
		grep -aE 'Kernel panic|BUG: |Oops: |lockup|detected stall' "$tmp/console" | head -n 5 || :
		tail -n 30 "$tmp/console"
	} | tr -d '\r' | sed 's/^/# console: /'
}

trap cleanup EXIT
trap 'exit 143' TERM INT HUP
tmp=$(mktemp -d)
root=$tmp/root
mkdir "$root"
