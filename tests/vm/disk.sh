# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The disk of the full guest without the tree: Debian as tools/build/packages says, the modules of its
# kernel, and one unit. Sourced by the harness after lib.sh. It stays in $O/vm until the packages, the
# kernel or this file change.

groups="build run demo test guest"

# The mirrors of this machine's own, for the Debian that it is.
mirrors() {
	apt-get indextargets --format "deb \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
		'Created-By: Packages' 'Origin: Debian' | sort -u
}

# Sets $system; its name says what it was made of.
get_system() {
	local packages key

	# shellcheck disable=SC2086
	packages=$(tools/build/install-packages --list $groups | paste -sd ,)
	key=$(printf '%s\n' "$packages" "$package" "$(cat tests/vm/disk.sh)" | sha256sum | cut -c 1-16)
	system=$cache/system-$key.ext4
	[ -e "$system" ] || make_system "$packages"
}

make_system() {
	local packages=$1 dir=$tmp/system

	echo "# making the guest's disk: once, and again when the packages change"
	rm -f "$cache"/system-*.ext4
	mirrors | mmdebstrap --mode=root --variant=minbase --include="$packages" \
		--aptopt='APT::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		"$(. /etc/os-release && echo "$VERSION_CODENAME")" "$dir" - >"$tmp/mmdebstrap.log" 2>&1 || {
		tail -n 10 "$tmp/mmdebstrap.log" | sed 's/^/# mmdebstrap: /'
		bail "no system for the guest"
	}
	cp -r "$cache/$package/modules" "$dir/usr/lib/"
	depmod -b "$dir" "$(ls "$dir/usr/lib/modules")"
	configure "$dir"
	truncate -s 4G "$tmp/system.ext4"
	mke2fs -q -F -t ext4 -O ^has_journal -d "$dir" "$tmp/system.ext4"
	mv "$tmp/system.ext4" "$system"
	rm -rf "$dir"
}

# Nothing starts by itself but systemd's own, and the one unit of this harness.
configure() {
	local units=$1/etc/systemd/system unit

	echo dmm-guest >"$1/etc/hostname"
	printf '127.0.0.1 localhost dmm-guest\n::1 localhost\n' >"$1/etc/hosts"
	printf '/dev/vda / ext4 defaults 0 0\n/dev/vdb /dmm ext4 defaults 0 0\n' >"$1/etc/fstab"
	mkdir -p "$1/dmm"
	rm -f "$units"/multi-user.target.wants/* "$units"/timers.target.wants/*
	for unit in getty@tty1.service serial-getty@ttyS0.service serial-getty@ttyS1.service; do
		ln -sf /dev/null "$units/$unit"
	done
	ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
	ln -sf ../dmm-tests.service "$units/multi-user.target.wants/"
	cat >"$units/dmm-tests.service" <<-'EOF'
		[Unit]
		Description=The tests of DMM
		RequiresMountsFor=/dmm
		SuccessAction=poweroff-force
		FailureAction=poweroff-force
		[Service]
		ExecStart=/dmm/tests/vm/guest
		StandardOutput=file:/dev/ttyS1
		StandardError=inherit
		LimitNOFILE=65536
		LimitCORE=0
		TasksMax=infinity
	EOF
}
