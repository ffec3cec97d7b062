# Controls of this profile, and those of another one.
include_controls 'accounts' do
  skip_control 'accounts-shadow-age'
end

control 'files-passwd' do
  impact 0.7
  title 'Only root may change the list of users'
  desc 'Whoever can write to /etc/passwd can become any user.'
  desc 'check', 'Run: stat -c %a /etc/passwd'
  desc 'fix', 'Run: chmod 0644 /etc/passwd; chown root:root /etc/passwd'
  tag nist: ['AC-6', 'CM-6']
  tag cci: ['CCI-000366']
  describe file('/etc/passwd') do
    it { should exist }
    its('owner') { should eq 'root' }
    it { should_not be_writable.by('others') }
  end
end

control 'files-motd' do
  impact 0.3
  title 'Users are told what they agree to'
  desc 'A notice before use makes clear that use is watched.'
  tag nist: ['AC-8']
  describe file('/etc/motd') do
    its('content') { should include input('motd') }
  end
end
