control 'accounts-one-root' do
  impact 0.9
  title 'No user but root has user id 0'
  desc 'Every user with id 0 is root by another name.'
  tag nist: ['AC-6(5)', 'IA-2']
  describe passwd.uids(0) do
    its('users') { should cmp 'root' }
  end
end

control 'accounts-shadow-age' do
  impact 0.3
  title 'Passwords have an end'
  desc 'Left out by the profile that includes this one.'
  describe login_defs do
    its('PASS_MAX_DAYS') { should cmp <= 365 }
  end
end
