-- New functions are executable by everyone; here none is unless its own file says so below.
revoke execute on all functions in schema payments from public;
